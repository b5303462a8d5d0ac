"""Profiles against the numbers that their makers print, and the roof against one worked by hand."""

import dataclasses
from typing import TYPE_CHECKING

import pytest

from deploy_kit import environment, graph
from deploy_kit.gauges import _peak
from deploy_kit.measure import profiles, roofline
from deploy_kit.measure.profiles import Measured, Peak
from deploy_kit.measure.roofline import Work
from deploy_kit.readings import Board
from deploy_kit.records import Precision

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

HERE = dataclasses.replace(environment.describe(), cpu="a processor", isa=("avx2",), virtual=False, cores=2)
MEASURED = Measured(flop_s=200e9, bandwidth_b_s=20e9)
NANO = "nvidia,p3768-0000+p3767-0005"


def board(compatible: str = "", *, model: str = "", gpu_max_mhz: float = 0.0) -> Board:
    return Board(model=model, compatible=(compatible,), memory_gib=8.0, cores=4, gpu_max_mhz=gpu_max_mhz)


# Sparse TOPS as NVIDIA prints them for the GPU alone (for the whole module where there is no DLA), half of it dense.
@pytest.mark.parametrize(
    ("module", "mhz", "sparse_tops"),
    [
        ("p3767-0004", 625, 20),
        ("p3767-0004", 1020, 34),
        ("p3767-0005", 625, 40),
        ("p3767-0003", 1020, 67),
        ("p3767-0001", 765, 70 - 20),
        ("p3767-0000", 918, 100 - 40),
        ("p3767-0000", 1173, 157 - 80),
        ("p3701-0004", 930, 200 - 92),
        ("p3701-0005", 1300.5, 275 - 105),
    ],
)
def test_the_dense_int8_rate_of_a_gpu_is_half_of_the_sparse_one_without_dla(
    module: str, mhz: float, sparse_tops: float
) -> None:
    found = profiles.gpu_peak(board(f"nvidia,{module}", gpu_max_mhz=mhz), "int8")

    assert found is not None
    assert found.ops_s == pytest.approx(sparse_tops / 2 * 1e12, rel=0.03)


@pytest.mark.parametrize(
    ("precision", "tops"), [("int8", 22.6), ("fp16", 11.3), ("fp32", 1.41)], ids=["int8", "fp16", "fp32"]
)
def test_agx_xavier_has_the_rates_of_its_data_sheet(precision: Precision, tops: float) -> None:
    found = profiles.gpu_peak(board("nvidia,p2822-0000+p2888-0004"), precision)

    assert found is not None
    assert found.ops_s == pytest.approx(tops * 1e12, rel=0.01)


def test_agx_orins_float32_rate_is_that_of_its_data_sheet() -> None:
    found = profiles.gpu_peak(board("nvidia,p3701-0005"), "fp32")

    assert found is not None
    assert found.ops_s == pytest.approx(5.3e12, rel=0.01)


def test_the_rate_follows_the_clock_limit_in_force() -> None:
    found = profiles.gpu_peak(board(NANO, gpu_max_mhz=918), "int8")

    assert found is not None
    assert found.ops_s == pytest.approx(8 * 4096 * 918e6)
    assert (found.basis, found.bandwidth_b_s) == ("computed", 102e9)
    assert "918 MHz (clock limit in force)" in found.source


def test_bandwidth_is_that_of_the_power_mode() -> None:
    found = profiles.gpu_peak(board(NANO, gpu_max_mhz=612), "int8")

    assert found is not None
    assert found.bandwidth_b_s == 68e9


def test_without_a_limit_the_highest_clock_is_assumed_and_said() -> None:
    found = profiles.gpu_peak(board(NANO), "int8")

    assert found is not None
    assert found.basis == "datasheet"
    assert "1020 MHz (highest clock (MAXN_SUPER), for the device states none)" in found.source


def test_a_rate_that_the_maker_does_not_state_is_not_made_up() -> None:
    thor = board("nvidia,p4071-0000+p3834-0008")

    assert profiles.gpu_peak(thor, "int8") is None
    assert profiles.gpu_peak(thor, "fp16") is not None


def test_an_unknown_gpu_has_no_roof() -> None:
    assert profiles.gpu_peak(board("vendor,board"), "int8") is None


def test_every_row_is_found_by_each_of_its_names_and_has_a_source() -> None:
    for row in profiles.table().devices:
        assert [profiles.device_of(board(f"nvidia,{name}")) for name in row.match] == [row] * len(row.match)
        assert row.source
        assert [mode.gpu_mhz for mode in row.modes] == sorted(mode.gpu_mhz for mode in row.modes)


@pytest.mark.parametrize(
    ("model", "precision", "ops_s"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", "fp32", 4 * 1.8e9 * 8),
        ("Raspberry Pi 5 Model B Rev 1.0", "int8", 4 * 2.4e9 * 64),
        ("Raspberry Pi 5 Model B Rev 1.0", "bf16", 4 * 2.4e9 * 16),
    ],
)
def test_a_known_processor_has_its_rows_rate(model: str, precision: Precision, ops_s: float) -> None:
    found = profiles.cpu_peak(board(model=model), HERE, precision, MEASURED)

    assert (found.ops_s, found.basis) == (ops_s, "datasheet")


def test_cores_of_two_kinds_add_up() -> None:
    nuc = dataclasses.replace(HERE, cpu="13th Gen Intel(R) Core(TM) i5-1340P")

    found = profiles.cpu_peak(board(), nuc, "fp32", MEASURED)

    assert found.ops_s == 4 * 4.6e9 * 32 + 8 * 3.4e9 * 16


def test_a_virtual_machine_is_measured_whatever_it_calls_itself() -> None:
    guest = dataclasses.replace(HERE, cpu="13th Gen Intel(R) Core(TM) i5-1340P", virtual=True)

    assert profiles.cpu_peak(board(), guest, "fp32", MEASURED).ops_s == MEASURED.flop_s


@pytest.mark.parametrize(
    ("isa", "precision", "factor", "basis"),
    [
        (("avx2",), "fp32", 1, "measured"),
        (("avx2",), "int8", 1.3333, "computed"),
        (("avx2", "avx512f", "avx512_vnni"), "int8", 4, "computed"),
        (("avx512_vnni", "amx_int8"), "int8", 32, "computed"),
        (("asimddp",), "int8", 4, "computed"),
        ((), "int8", 1, "measured"),
        (("avx2",), "bf16", 1, "measured"),
    ],
)
def test_an_unknown_processors_rate_is_measured_times_its_instruction_set(
    isa: tuple[str, ...], precision: Precision, factor: float, basis: str
) -> None:
    found = profiles.cpu_peak(board(), dataclasses.replace(HERE, isa=isa), precision, MEASURED)

    assert (found.ops_s, found.basis) == (pytest.approx(200e9 * factor), basis)
    assert found.source.startswith("200 GFLOP/s float32 by numpy on 2 cores")


def test_the_work_of_a_graph_is_counted_by_node(line: "Line") -> None:
    path = line.store.path(line.lean)

    one, four = roofline.work_of(path, 1), roofline.work_of(path, 4)

    assert one.macs == graph.macs(graph.load(path))
    assert (four.macs, four.weights, four.activations) == (4 * one.macs, one.weights, 4 * one.activations)


def test_a_quantized_graph_holds_the_same_work(line: "Line") -> None:
    float_work = roofline.work_of(line.store.path(line.lean), 1)

    assert roofline.work_of(line.store.path(line.graph("int8")), 1) == float_work


PEAK = Peak(device="d", basis="measured", source="s", ops_s=100e9, bandwidth_b_s=10e9)


def test_the_roof_is_as_worked_by_hand() -> None:
    # 2 · 50e6 operations at 100 GOP/s: 1 ms. 4 MB at 10 GB/s: 0.4 ms.
    found = roofline.roof(Work(macs=50_000_000, weights=600_000, activations=400_000), PEAK, "fp32", "cpu")

    assert found is not None
    assert (found.compute_ms, found.memory_ms) == pytest.approx((1.0, 0.4))
    assert (found.floor_ms, found.bound_by) == (found.compute_ms, "compute")
    assert found.share(2.0) == pytest.approx(0.5)


def test_int8_moves_a_quarter_of_the_bytes() -> None:
    work = Work(macs=1, weights=600_000, activations=400_000)

    found = [roofline.roof(work, PEAK, precision, "cpu") for precision in ("fp32", "fp16", "int8")]

    assert [one.moved_bytes for one in found if one] == [4_000_000, 2_000_000, 1_000_000]
    assert [one.bound_by for one in found if one] == ["memory"] * 3


def test_a_graph_without_products_has_no_roof() -> None:
    assert roofline.roof(Work(macs=0, weights=0, activations=9), PEAK, "fp32", "cpu") is None


def test_the_peak_is_that_of_the_fastest_run() -> None:
    ticks = iter([tick for run in range(12) for tick in (run * 10**9, run * 10**9 + (10**6 if run == 7 else 10**8))])

    found = _peak.flop_s(lambda: next(ticks))

    assert found == pytest.approx(2 * 1024**3 / 1e-3)


def test_this_machine_copies_memory() -> None:
    assert 1e8 < _peak.bandwidth_b_s() < 1e13
