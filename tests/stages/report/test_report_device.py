"""The report's words on conditions, energy and roof, from records that are known."""

import dataclasses
from typing import Any

from report_records import artifact, made, measurement

from deploy_kit.records import codec
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.readings import Conditions, Energy, QuantityCourse, Rail, Roof
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import report
from deploy_kit.stages.report import device
from deploy_kit.stages.report.markdown import section

CONDITIONS = Conditions(
    settings=(("governor", "powersave"),),
    courses=(
        QuantityCourse(what="clock of the fastest core", unit="MHz", before=800, low=1800, high=3000, after=2900),
        QuantityCourse(what="hottest sensor", unit="°C", before=41, low=60.5, high=71, after=70),
    ),
    foreign=0.012,
    timed_s=2.4,
    unjudged=("throttle: no counter here",),
    advice=("sudo cpupower frequency-set -g performance",),
    own_cost=0.0042,
)
RAIL = Rail(name="VDD_IN", gauge="ina", joules=165, seconds=11, idle_w=5, rate_hz=4, runs=500, batch=2)
ROOF = Roof(
    device="Jetson Orin Nano 8GB",
    processor="gpu",
    precision="int8",
    basis="computed",
    source="8 SM",
    peak_ops_s=30e12,
    bandwidth_b_s=102e9,
    macs=2_800_000_000,
    moved_bytes=41_820_000,
)


def timed(**facts: Any) -> Measurement:
    """Twenty runs of 2 ms, with what is told beside them."""
    return dataclasses.replace(measurement("int8 · openvino", (2.0,) * 20), **facts)


def lines(**facts: Any) -> list[str]:
    row = EngineRow(label="int8 · openvino", artifact=artifact("int8", "openvino"), measurement=timed(**facts))
    return [line for part in device.sections(made(row)) for line in section(part)]


def row_of(found: list[str], heading: str) -> str:
    """Give the first row of the table below a heading."""
    below = found[found.index(heading) :]
    return next(line for line in below if line.startswith("| int8 · openvino"))


def test_without_gauges_there_are_no_sections() -> None:
    assert lines() == []


def test_conditions_are_before_within_and_after() -> None:
    row = row_of(lines(conditions=CONDITIONS), "## Conditions")

    assert row == (
        "| int8 · openvino | valid | 2.4 s | 800 → 1800 to 3000 → 2900 MHz | 41.0 → 60.5 to 71.0 → 70.0 °C | – | "
        "1.2 % | throttle: no counter here |"
    )


def test_settings_and_the_cost_of_reading_are_said() -> None:
    text = "\n".join(lines(conditions=CONDITIONS))

    assert "Settings: governor powersave." in text
    assert "Reading the gauges took 0.42 % of one core." in text


def test_an_invalid_measurement_is_marked_with_its_reason() -> None:
    row = row_of(lines(conditions=CONDITIONS, invalid=("the clock fell by 40.0 %",)), "## Conditions")

    assert "**INVALID**: the clock fell by 40.0 %" in row


def test_commands_for_an_administrator_are_printed_as_not_run() -> None:
    found = lines(conditions=CONDITIONS)

    assert "An administrator may steady it: `sudo cpupower frequency-set -g performance`. Nothing was changed." in found


def test_the_clock_of_the_gpu_stands_beside_that_of_the_cores() -> None:
    gpu = QuantityCourse(what="clock of the GPU", unit="MHz", before=306, low=918, high=918, after=918)
    both = dataclasses.replace(CONDITIONS, courses=(*CONDITIONS.courses, gpu))

    row = row_of(lines(conditions=both), "## Conditions")

    assert "CPU 800 → 1800 to 3000 → 2900 MHz, GPU 306 → 918 to 918 → 918 MHz" in row


def test_energy_names_rail_rate_and_idle() -> None:
    row = row_of(lines(energy=Energy(rails=(RAIL,))), "## Energy")

    assert row == "| int8 · openvino | VDD_IN (ina) | 110 | 9.09 | 15.00 W | 5.00 W | 11.0 s at 4.0 Hz |"


def test_energy_that_was_not_measured_has_its_reason_and_no_number() -> None:
    found = lines(energy=Energy(why="not measured: no RAPL; no driver"))

    assert found == ["## Energy", "", "Not measured: no RAPL; no driver.", ""]


def test_the_roof_gives_a_share_and_what_bounds_it() -> None:
    # 5.6 G operations at 30 TOP/s are 0.187 ms; 41.82 MB at 102 GB/s are 0.41 ms; of 2 ms that is 20.5 %.
    row = row_of(lines(roof=ROOF), "## Roofline")

    assert row == (
        "| int8 · openvino | 20 % of the int8 roof | 2.000 ms | "
        "0.187 ms (2800.0 M multiply-accumulates, 30.00 TOP/s) | 0.410 ms (41.82 MB at 102.0 GB/s) | memory | "
        "computed: 8 SM |"
    )


def test_the_roof_is_called_an_estimate() -> None:
    text = "\n".join(lines(roof=ROOF))

    assert "An estimate of the least time that Jetson Orin Nano 8GB could need" in text


def test_a_share_needs_a_median_and_a_roof() -> None:
    assert device.share(timed(roof=ROOF)) == "20 % of the int8 roof"
    assert device.share(timed(roof=ROOF, invalid=("why",))) == "20 % of the int8 roof (INVALID)"
    assert device.share(timed()) == ""
    assert device.share(timed(roof=ROOF, samples_ms=(2.0,))) == ""


def test_the_sections_stand_in_the_report() -> None:
    row = EngineRow(label="one", artifact=artifact("int8", "openvino"), measurement=timed(roof=ROOF))

    assert "## Roofline" in report.markdown(made(row)).splitlines()


def test_everything_told_comes_back_from_json() -> None:
    whole = timed(conditions=CONDITIONS, energy=Energy(rails=(RAIL,)), roof=ROOF, invalid=("a reason",))

    assert codec.from_json(Measurement, codec.to_json(whole)) == whole
