"""Whether anything is held back: x86 counters, cooling devices, Tegra's over-current events, the Raspberry Pi's flags.

Sources: ``core_throttle_count`` counts thermal events of a core since boot. A cooling device whose state is not 0 is
at work. ``ocN_event_cnt`` of ``soctherm_oc`` counts Tegra's under-voltage and over-current events. The lower four bits
of the Raspberry Pi's ``get_throttled`` are live (under-voltage, clock capped, throttled, soft temperature limit).
"""

from collections.abc import Iterator

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_COUNTERS = ("core_throttle_count", "package_throttle_count")
_LIMITERS = ("Processor", "cpufreq", "thermal-cpufreq", "devfreq", "thermal-devfreq")  # not fans
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


def _flag(what: str, value: float) -> Reading:
    return Reading(gauge="throttle", what=what, kind="throttle_flag", value=value)


def _count(what: str, value: float) -> Reading:
    return Reading(gauge="throttle", what=what, kind="throttle_count", value=value)


def _x86(place: GaugeScope) -> Iterator[Reading]:
    for core in sorted((place.root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")):
        for name in _COUNTERS:
            value = read_number(core / name)
            if value is not None:
                yield _count(f"{core.parent.name} {name}", value)


def _cooling(place: GaugeScope) -> Iterator[Reading]:
    for device in sorted((place.root / "sys/class/thermal").glob("cooling_device*")):
        kind, state = read_text(device / "type"), read_number(device / "cur_state")
        if state is not None and (kind.startswith(_LIMITERS) or kind.endswith("-alert")):
            yield _flag(kind, max(state, 0))  # -1 where it was never used


def _over_current(place: GaugeScope) -> Iterator[Reading]:
    for chip in sorted((place.root / "sys/class/hwmon").glob("hwmon*")):
        if read_text(chip / "name") == "soctherm_oc":
            for file in sorted(chip.glob("oc*_event_cnt")):
                value = read_number(file)
                if value is not None:
                    yield _count(f"soctherm_oc {file.name.split('_')[0]}", value)


def _raspberry_pi(place: GaugeScope) -> Iterator[Reading]:
    try:
        bits = int(read_text(place.root / _PI), 16)
    except ValueError:
        return
    for position, name in enumerate(_PI_BITS):
        yield _flag(name, bits >> position & 1)


def read(place: GaugeScope) -> tuple[Reading, ...]:
    """Read every flag and counter there is."""
    return (*_x86(place), *_cooling(place), *_over_current(place), *_raspberry_pi(place))


def why_unavailable(place: GaugeScope) -> str:
    """Say why there is nothing to read."""
    return "" if read(place) else "no throttle counter, cooling device or firmware flag here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
