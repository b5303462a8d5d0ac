"""Times of an emulated machine: marked wherever they are shown, and compared with nothing."""

import pytest
from emulated_records import HERE, MARK, measurement

from deploy_kit.analysis import compare, latency_rows
from deploy_kit.base.errors import MeasurementError
from deploy_kit.cli import _bench_tables, _tool_formats
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.recipe import BenchTable
from deploy_kit.records import engine_table
from deploy_kit.records.measurements import Bench, Measurement
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import bench

PART = BenchTable(rounds=6, runs=4, warmup_s=0.1, baseline="fp32 · onnxruntime")


FP32, INT8 = measurement("fp32 · onnxruntime", 4.0), measurement("int8 · onnxruntime", 2.0)
REAL = measurement("fp32 · onnxruntime", 4.0, HERE)


def row(measured: Measurement) -> EngineRow:
    return EngineRow(label=measured.label, artifact=None, measurement=measured)


def test_a_measurement_of_an_emulated_machine_says_so():
    assert (INT8.emulated, REAL.emulated) == (MARK, "")


@pytest.mark.parametrize(("one", "other"), [(FP32, INT8), (REAL, INT8), (INT8, REAL)])
def test_there_is_no_speed_up_with_an_emulated_machine_on_either_side(one, other):
    assert speed_up(one, other) is None


def test_between_real_machines_there_is_one():
    assert speed_up(REAL, measurement("int8 · onnxruntime", 2.0, HERE)).ratio == 2


@pytest.mark.parametrize("limit", [{"latency_budget_ms": 100.0}, {"fail_on_regression": 3.0}])
def test_a_limit_is_not_kept_by_a_time_that_is_none(limit):
    part = PART.model_copy(update=limit)

    assert bench.misses(INT8, part) == (f"latency cannot be judged: {MARK}",)


def test_without_a_limit_nothing_is_missed():
    assert bench.misses(INT8, PART) == ()


@pytest.mark.parametrize(("one", "other"), [(FP32, FP32), (REAL, FP32), (FP32, REAL)])
def test_runs_are_not_compared(one, other):
    with pytest.raises(MeasurementError) as caught:
        compare.compare_runs(Bench(measurements=(one,)), Bench(measurements=(other,)), allow=("environment",))

    assert str(caught.value) == f"fp32 · onnxruntime: its times are {MARK} (by qemu-aarch64-static)"
    assert caught.value.hint == "measure on the device itself"


def test_the_table_of_bench_marks_the_row():
    lines = _bench_tables.latencies({"edge": [row(REAL), row(INT8)]}, PART).splitlines()

    assert [MARK in line for line in lines if " ms " in line] == [False, True]


def test_a_budget_that_is_kept_is_said_to_be_on_a_real_machine_alone():
    part = PART.model_copy(update={"latency_budget_ms": 100.0, "percentiles": (50.0,)})

    lines = _bench_tables.latencies({"edge": [row(REAL), row(INT8)]}, part).splitlines()

    assert ["p50 ≤ 100 ms: kept" in line for line in lines if " ms " in line] == [True, False]


def test_the_note_below_it_names_the_emulator():
    notes = _bench_tables.latencies({"edge": [row(INT8)]}, PART)

    assert f"note: int8 · onnxruntime: {MARK} (by qemu-aarch64-static)" in notes


def test_the_report_marks_each_time():
    *_, p50, p99, faster, _ = engine_table.cells(row(INT8))

    assert (p50, p99, faster) == (f"2.000 ms ({MARK})", "–", "–")


def test_the_report_says_so_in_a_remark():
    assert latency_rows.unsteady_remarks(Bench(measurements=(INT8,))) == [f"int8 · onnxruntime: its times are {MARK}"]


def test_other_tools_records_carry_the_mark():
    assert _tool_formats.summary(INT8)["remark"] == MARK
    assert {item["remark"] for item in _tool_formats.times(Bench(measurements=(INT8,)))} == {MARK}


def test_records_of_real_machines_carry_none():
    assert "remark" not in _tool_formats.summary(REAL)
    assert all("remark" not in item for item in _tool_formats.times(Bench(measurements=(REAL,))))
