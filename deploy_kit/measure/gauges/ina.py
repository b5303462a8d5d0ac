"""Power rails of a board: INA3221 (Jetson up to Orin) and INA238 (Thor), by hwmon or the older iio.

INA3221 gives mV and mA of up to three rails (``in1_label``, ``in1_input``, ``curr1_input``); its channels 4 to 7 are
shunt voltages and their sum, not rails. INA238 gives ``power1_input`` in µW. L4T before 34 gives ``in_power0_input`` in
mW. Rails overlap (``VDD_IN`` feeds the others), so they are never added up here.
"""

from collections.abc import Iterator
from pathlib import Path

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_UNUSED = ("", "NC")


def _ina3221(chip: Path) -> Iterator[tuple[str, float]]:
    for file in sorted(chip.glob("in[123]_label")):
        channel, name = file.name[2], read_text(file)
        volts, amperes = read_number(chip / f"in{channel}_input"), read_number(chip / f"curr{channel}_input")
        if name not in _UNUSED and volts is not None and amperes is not None:
            yield name, volts * amperes / 1000


def _ina238(chip: Path) -> Iterator[tuple[str, float]]:
    power = read_number(chip / "power1_input")
    if power is not None:
        yield read_text(chip / "power1_label") or read_text(chip / "in1_label") or "VIN", power / 1000


def _iio(device: Path) -> Iterator[tuple[str, float]]:
    for file in sorted(device.glob("rail_name_*")):
        name, power = read_text(file), read_number(device / f"in_power{file.name[-1]}_input")
        if name not in _UNUSED and power is not None:
            yield name, power


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read the power of each rail in mW."""
    rails: list[tuple[str, float]] = []
    for chip in sorted((scope.root / "sys/class/hwmon").glob("hwmon*")):
        kind = read_text(chip / "name")
        rails += _ina3221(chip) if kind == "ina3221" else _ina238(chip) if kind == "ina238" else ()
    for device in sorted((scope.root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        rails += _iio(device)
    return tuple(Reading(gauge="ina", what=name, kind="power_mw", value=power) for name, power in rails)


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there are no rails."""
    return "" if read(scope) else "no INA3221 or INA238 here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, measures_energy=True)
