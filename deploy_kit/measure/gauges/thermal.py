"""Temperatures of thermal zones, and of the processor's own sensors on a PC."""

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read every temperature; a zone whose part of the chip is powered down gives none."""
    sensors: list[tuple[str, float | None]] = []
    for zone in sorted((scope.root / "sys/class/thermal").glob("thermal_zone*")):
        sensors.append((read_text(zone / "type") or zone.name, read_number(zone / "temp")))
    for chip in sorted((scope.root / "sys/class/hwmon").glob("hwmon*")):
        name = read_text(chip / "name")
        if name in _SENSORS:
            inputs = sorted(chip.glob("temp*_input"))
            sensors += [(read_text(chip / f"{file.name[:-6]}_label") or name, read_number(file)) for file in inputs]
    return tuple(
        Reading(gauge="thermal", what=what, kind="temperature_c", value=milli / 1000)
        for what, milli in sensors
        if milli is not None
    )


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there are no temperatures."""
    return "" if read(scope) else "no thermal zone and no sensor of the processor here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
