"""RAPL: energy counters of the processor packages (Intel, and AMD from Zen on).

A package holds cores, caches and, on client parts, the GPU; memory, disks and the losses of the power supply are not
in it.
"""

from pathlib import Path

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text, why_unreadable
from deploy_kit.records.readings import Reading


def _packages(place: GaugeScope) -> list[Path]:
    """List the packages; their parts (``intel-rapl:0:0``) are in them already."""
    zones = (place.root / "sys/class/powercap").glob("intel-rapl:*")
    return sorted(
        zone for zone in zones if zone.name.count(":") == 1 and read_text(zone / "name").startswith("package")
    )


def read(place: GaugeScope) -> tuple[Reading, ...]:
    """Read the counter of each package, in µJ."""
    found = ((zone, read_number(zone / "energy_uj")) for zone in _packages(place))
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


def why_unavailable(place: GaugeScope) -> str:
    """Say why there is no energy."""
    packages = _packages(place)
    if not packages:
        return "no RAPL package here (/sys/class/powercap/intel-rapl:*)"
    return why_unreadable(packages[0] / "energy_uj")


def advice(place: GaugeScope) -> tuple[str, ...]:
    """Give the command that opens the counters, which Linux has kept for root since 5.10."""
    packages = _packages(place)
    closed = bool(packages) and bool(why_unavailable(place))
    return ("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",) if closed else ()


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, advice=advice)
