"""Profiles against the numbers that their makers print, and the roof against one worked by hand."""

import dataclasses
from typing import TYPE_CHECKING

import pytest

from deploy_kit.graph import onnx_file
from deploy_kit.machine import environment
from deploy_kit.measure import hardware_peaks, roofline
from deploy_kit.measure.gauges import _peak
from deploy_kit.measure.hardware_peaks import MeasuredPeak, Peak
from deploy_kit.measure.roofline import Work
from deploy_kit.records.artifacts import Precision
from deploy_kit.records.readings import Board

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

HERE = dataclasses.replace(environment.describe_machine(), cpu="a processor", isa=("avx2",), virtual=False, cores=2)
MEASURED = MeasuredPeak(flop_s=200e9, bandwidth_b_s=20e9)
NANO = "nvidia,p3768-0000+p3767-0005"


def board(compatible: str = "", *, gpu_max_mhz: float = 0.0, mask: int = 0, memory_max_mhz: float = 0.0) -> Board:
    return Board(
        model="",
        compatible=(compatible,),
        memory_gib=8.0,
        cores=4,
        gpu_max_mhz=gpu_max_mhz,
        gpu_tpc_mask=mask,
        memory_max_mhz=memory_max_mhz,
    )


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
        ("p3701-0004", 939, 108),
        ("p3701-0005", 1300, 275 - 105),
    ],
)
def test_the_dense_int8_rate_of_a_gpu_is_half_of_the_sparse_one_without_dla(
    module: str, mhz: float, sparse_tops: float
) -> None:
    found = hardware_peaks.gpu_peak(board(f"nvidia,{module}", gpu_max_mhz=mhz), "int8")

    assert found is not None
    assert found.ops_s == pytest.approx(sparse_tops / 2 * 1e12, rel=0.03)


# NVIDIA/Deep-Learning-Accelerator-SW, README: sparse int8 TOPS of AGX Orin's GPU by power mode, at that time's clocks
@pytest.mark.parametrize(
    ("mask", "mhz", "sparse_tops"), [(0, 1300.5, 171), (0, 828.75, 109), (240, 624.75, 41)], ids=["MAXN", "50W", "30W"]
)
def test_clusters_that_the_power_mode_switches_off_do_not_count(mask: int, mhz: float, sparse_tops: float) -> None:
    found = hardware_peaks.gpu_peak(board("nvidia,p3701-0005", gpu_max_mhz=mhz, mask=mask), "int8")

    assert found is not None
    assert found.ops_s == pytest.approx(sparse_tops / 2 * 1e12, rel=0.01)


@pytest.mark.parametrize("mask", [255, 4095])
def test_a_mask_that_cannot_be_is_not_believed(mask: int) -> None:
    found = hardware_peaks.gpu_peak(board(NANO, gpu_max_mhz=1020, mask=mask), "int8")

    assert found == hardware_peaks.gpu_peak(board(NANO, gpu_max_mhz=1020), "int8")


@pytest.mark.parametrize(
    ("precision", "tops"), [("int8", 22), ("fp16", 11), ("fp32", 1.41)], ids=["int8", "fp16", "fp32"]
)
def test_agx_xavier_has_the_rates_that_its_maker_prints(precision: Precision, tops: float) -> None:
    found = hardware_peaks.gpu_peak(board("nvidia,p2822-0000+p2888-0004"), precision)

    assert found is not None
    assert found.ops_s == pytest.approx(tops * 1e12, rel=0.03)


def test_agx_orins_float32_rate_is_that_of_its_data_sheet() -> None:
    found = hardware_peaks.gpu_peak(board("nvidia,p3701-0005"), "fp32")

    assert found is not None
    assert found.ops_s == pytest.approx(5.3e12, rel=0.01)


def test_the_rate_follows_the_clock_limit_in_force() -> None:
    found = hardware_peaks.gpu_peak(board(NANO, gpu_max_mhz=918), "int8")

    assert found is not None
    assert found.ops_s == pytest.approx(8 * 4096 * 918e6)
    assert (found.basis, found.bandwidth_b_s) == ("computed", pytest.approx(102e9, rel=0.01))
    assert "918 MHz (clock limit in force)" in found.source


# Bandwidths as the data sheets print them, in GB/s.
@pytest.mark.parametrize(
    ("module", "mhz", "bandwidth_gb_s"),
    [
        ("p3767-0004", 612, 34),
        ("p3767-0005", 612, 68),
        ("p3767-0005", 1020, 102),
        ("p3767-0000", 918, 102),
        ("p3701-0005", 1300, 204.8),
        ("p3668-0001", 1100, 59.7),
        ("p2888-0001", 1377, 136.5),
        ("p3834-0008", 1575, 273),
    ],
)
def test_bandwidth_is_that_of_the_data_sheet(module: str, mhz: float, bandwidth_gb_s: float) -> None:
    found = hardware_peaks.gpu_peak(board(f"nvidia,{module}", gpu_max_mhz=mhz), "fp16")

    assert found is not None
    assert found.bandwidth_b_s == pytest.approx(bandwidth_gb_s * 1e9, rel=0.01)


def test_the_memory_clock_in_force_decides_the_bandwidth_and_no_clock_above_the_highest() -> None:
    # Orin NX in its 10W mode: 612 MHz as in 15W, but the memory at 2133 MHz.
    slow = hardware_peaks.gpu_peak(board("nvidia,p3767-0000", gpu_max_mhz=612, memory_max_mhz=2133), "int8")
    absurd = hardware_peaks.gpu_peak(board("nvidia,p3767-0000", gpu_max_mhz=612, memory_max_mhz=1e9), "int8")

    assert slow is not None and absurd is not None
    assert slow.bandwidth_b_s == pytest.approx(68.3e9, rel=0.01)
    assert absurd.bandwidth_b_s == pytest.approx(102e9, rel=0.01)


def test_without_a_limit_the_highest_clock_is_assumed_and_said() -> None:
    found = hardware_peaks.gpu_peak(board(NANO), "int8")

    assert found is not None
    assert found.basis == "datasheet"
    assert "1020 MHz (highest clock (MAXN_SUPER), for the device states none)" in found.source


def test_a_rate_that_no_source_gives_is_not_made_up() -> None:
    thor = board("nvidia,p4071-0000+p3834-0008")

    assert hardware_peaks.gpu_peak(thor, "int8") is None
    assert hardware_peaks.gpu_peak(thor, "fp16") is not None


def test_an_unknown_gpu_has_no_roof() -> None:
    assert hardware_peaks.gpu_peak(board("vendor,board"), "int8") is None


def test_every_row_is_found_by_each_of_its_names_and_has_a_source() -> None:
    for row in hardware_peaks.peak_table().devices:
        assert [hardware_peaks.find_known_gpu(board(f"nvidia,{name}")) for name in row.match] == [row] * len(row.match)
        assert "https://" in row.source
        assert [mode.gpu_mhz for mode in row.modes] == sorted(mode.gpu_mhz for mode in row.modes)


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
def test_a_processors_rate_is_measured_times_its_instruction_set(
    isa: tuple[str, ...], precision: Precision, factor: float, basis: str
) -> None:
    found = hardware_peaks.cpu_peak(dataclasses.replace(HERE, isa=isa), precision, MEASURED)

    assert (found.ops_s, found.basis) == (pytest.approx(200e9 * factor), basis)
    assert found.source.startswith("200 GFLOP/s float32 by numpy on 2 cores")


def test_the_work_of_a_graph_is_counted_by_node(line: "Line") -> None:
    path = line.store.path(line.lean)

    one, four = roofline.work_of(path, 1), roofline.work_of(path, 4)

    assert one.macs == onnx_file.macs(onnx_file.load(path))
    assert (four.macs, four.weights, four.activations) == (4 * one.macs, one.weights, 4 * one.activations)


def test_a_quantized_graph_holds_the_same_work(line: "Line") -> None:
    float_work = roofline.work_of(line.store.path(line.lean), 1)

    assert roofline.work_of(line.store.path(line.graph("int8")), 1) == float_work


PEAK = Peak(device="d", basis="measured", source="s", ops_s=100e9, bandwidth_b_s=10e9)


def test_the_roof_is_as_worked_by_hand() -> None:
    # 2 · 50e6 operations at 100 GOP/s: 1 ms. 4 MB at 10 GB/s: 0.4 ms.
    found = roofline.estimate_roof(Work(macs=50_000_000, weights=600_000, activations=400_000), PEAK, "fp32", "cpu")

    assert found is not None
    assert (found.compute_ms, found.memory_ms) == pytest.approx((1.0, 0.4))
    assert (found.floor_ms, found.bound_by) == (found.compute_ms, "compute")
    assert found.share(2.0) == pytest.approx(0.5)


def test_int8_moves_a_quarter_of_the_bytes() -> None:
    work = Work(macs=1, weights=600_000, activations=400_000)

    found = [roofline.estimate_roof(work, PEAK, precision, "cpu") for precision in ("fp32", "fp16", "int8")]

    assert [one.moved_bytes for one in found if one] == [4_000_000, 2_000_000, 1_000_000]
    assert [one.bound_by for one in found if one] == ["memory"] * 3


def test_a_graph_without_products_has_no_roof() -> None:
    assert roofline.estimate_roof(Work(macs=0, weights=0, activations=9), PEAK, "fp32", "cpu") is None


def test_the_peak_is_that_of_the_fastest_run() -> None:
    ticks = iter([tick for run in range(12) for tick in (run * 10**9, run * 10**9 + (10**6 if run == 7 else 10**8))])

    found = _peak.flop_s(lambda: next(ticks))

    assert found == pytest.approx(2 * 1024**3 / 1e-3)


def test_a_slow_machine_is_not_kept_at_it() -> None:
    ticks = iter([0, 3 * 10**9])  # one product took 3 s: eleven more would cost more than they tell

    assert _peak.flop_s(lambda: next(ticks)) == pytest.approx(2 * 1024**3 / 3)


def test_this_machine_copies_memory() -> None:
    assert 1e8 < _peak.bandwidth_b_s() < 1e13
