"""RAPL: energy counters of the processor packages (Intel, and AMD from Zen on).

A package contains cores, caches and, on client parts, the GPU, but not memory, disks and the losses of the power
supply.
"""

from pathlib import Path

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text, why_unreadable
from deploy_kit.records.readings import Reading


def _packages(scope: GaugeScope) -> list[Path]:
    """List the packages without their parts (``intel-rapl:0:0``), which they contain."""
    zones = (scope.root / "sys/class/powercap").glob("intel-rapl:*")
    return sorted(
        zone for zone in zones if zone.name.count(":") == 1 and read_text(zone / "name").startswith("package")
    )


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read the energy counter of each package in µJ."""
    found = ((zone, read_number(zone / "energy_uj")) for zone in _packages(scope))
    return tuple(
        Reading(
            gauge="rapl",
            what=read_text(zone / "name"),
            kind="energy_uj",
            value=value,
            wraps_at=read_number(zone / "max_energy_range_uj") or 0.0,
        )
        for zone, value in found
        if value is not None
    )


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there is no energy."""
    packages = _packages(scope)
    if not packages:
        return "no RAPL package here (/sys/class/powercap/intel-rapl:*)"
    return why_unreadable(packages[0] / "energy_uj")


def advice(scope: GaugeScope) -> tuple[str, ...]:
    """Recommend making the counters readable; Linux restricts them to root since 5.10."""
    packages = _packages(scope)
    closed = bool(packages) and bool(why_unavailable(scope))
    return ("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",) if closed else ()


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, advice=advice, measures_energy=True)
