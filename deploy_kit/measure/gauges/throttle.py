"""Throttling: x86 counters, cooling devices, Tegra's over-current events, the Raspberry Pi's flags.

``core_throttle_count`` counts thermal events of a core since boot. A cooling device whose state is not 0 is active.
``ocN_event_cnt`` of ``soctherm_oc`` counts Tegra's under-voltage and over-current events. The lower four bits of the
Raspberry Pi's ``get_throttled`` are live (under-voltage, clock capped, throttled, soft temperature limit).
"""

from collections.abc import Iterator

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_COUNTERS = ("core_throttle_count", "package_throttle_count")
# Cooling devices that lower a clock; a fan that turns slows nothing down.
_LIMITERS = ("Processor", "cpufreq", "thermal-cpufreq", "devfreq", "thermal-devfreq")
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


def _flag(what: str, value: float) -> Reading:
    return Reading(gauge="throttle", what=what, kind="throttle_flag", value=value)


def _count(what: str, value: float) -> Reading:
    return Reading(gauge="throttle", what=what, kind="throttle_count", value=value)


def _x86(scope: GaugeScope) -> Iterator[Reading]:
    for core in sorted((scope.root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")):
        for name in _COUNTERS:
            value = read_number(core / name)
            if value is not None:
                yield _count(f"{core.parent.name} {name}", value)


def _cooling(scope: GaugeScope) -> Iterator[Reading]:
    for device in sorted((scope.root / "sys/class/thermal").glob("cooling_device*")):
        kind, state = read_text(device / "type"), read_number(device / "cur_state")
        if state is not None and (kind.startswith(_LIMITERS) or kind.endswith("-alert")):
            yield _flag(kind, max(state, 0))  # the state is -1 until the device is used for the first time


def _over_current(scope: GaugeScope) -> Iterator[Reading]:
    for chip in sorted((scope.root / "sys/class/hwmon").glob("hwmon*")):
        if read_text(chip / "name") == "soctherm_oc":
            for file in sorted(chip.glob("oc*_event_cnt")):
                value = read_number(file)
                if value is not None:
                    yield _count(f"soctherm_oc {file.name.split('_')[0]}", value)


def _raspberry_pi(scope: GaugeScope) -> Iterator[Reading]:
    try:
        bits = int(read_text(scope.root / _PI), 16)
    except ValueError:
        return
    for position, name in enumerate(_PI_BITS):
        yield _flag(name, bits >> position & 1)


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read every flag and counter that the machine has."""
    return (*_x86(scope), *_cooling(scope), *_over_current(scope), *_raspberry_pi(scope))


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there is nothing to read."""
    return "" if read(scope) else "no throttle counter, cooling device or firmware flag here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
