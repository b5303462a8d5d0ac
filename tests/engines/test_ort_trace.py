"""ONNX Runtime's profile, read: traces written as its profiler writes them, of machines that are not here."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy_kit.base.errors import DeviceError, StageError
from deploy_kit.engines import _ort_trace

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MODEL = Path("model.onnx")


def event(name: str, op: str, provider: str = CPU, index: int = 0, dur: int = 1500, dtype: str = "float") -> Any:
    types = [{dtype: [1, 8, 4, 4]}, {dtype: [8, 8, 1, 1]}]
    facts = {"op_name": op, "provider": provider, "node_index": str(index), "input_type_shape": types}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": facts}


def written(folder: Path, *events: Any) -> Path:
    path = folder / "profile.json"
    path.write_text(json.dumps([{"cat": "Session", "name": "model_run", "dur": 9, "args": {}}, *events]))
    return path


def test_times_are_in_milliseconds_one_a_run(tmp_path: Path) -> None:
    (kernel,) = _ort_trace.read_trace(written(tmp_path, event("a", "Conv", dur=1500), event("a", "Conv", dur=500)))

    assert kernel.samples_ms == (1.5, 0.5)


def test_kernels_of_one_name_are_told_apart_by_their_node(tmp_path: Path) -> None:
    kernels = _ort_trace.read_trace(written(tmp_path, event("a", "Conv", index=1), event("a", "Conv", index=2)))

    assert len(kernels) == 2


@pytest.mark.parametrize(
    ("op", "dtype", "wanted"),
    [
        ("Conv", "float", "fp32"),
        ("FusedConv", "float16", "fp16"),
        ("QLinearConv", "uint8", "int8"),
        ("QGemm", "uint8", "int8"),
        ("MatMul", "bfloat16", "bf16"),
        ("MatMul", "double", "double"),
    ],
)
def test_what_a_kernel_computes_in_is_the_type_of_its_weight(tmp_path: Path, op: str, dtype: str, wanted: str) -> None:
    (kernel,) = _ort_trace.read_trace(written(tmp_path, event("a", op, dtype=dtype)))

    assert kernel.dtype == wanted


def test_gemm_whose_weights_were_packed_lists_its_first_input_alone(tmp_path: Path) -> None:
    packed = event("a", "Gemm")
    del packed["args"]["input_type_shape"][1]

    (kernel,) = _ort_trace.read_trace(written(tmp_path, packed))

    assert kernel.dtype == "fp32"


def test_placement_counts_nodes_by_provider(tmp_path: Path) -> None:
    events = [event(f"c{i}", "Conv", CUDA, i) for i in range(3)]
    events += [event("m", "MemcpyToHost", CUDA, 3), event("max", "Max", CPU, 4), event("g", "Gemm", CPU, 5)]

    placed = _ort_trace.count_placement(_ort_trace.read_trace(written(tmp_path, *events)))

    assert placed == ((CPU, "Gemm", 1), (CPU, "other", 1), (CUDA, "Conv", 3), (CUDA, "other", 1))


def test_a_minority_of_the_work_elsewhere_is_counted_and_accepted() -> None:
    _ort_trace.verify_placement(MODEL, ((CPU, "Conv", 2), (CPU, "other", 99), (CUDA, "Conv", 3)), CUDA)


def test_half_of_the_work_elsewhere_is_no_majority() -> None:
    _ort_trace.verify_placement(MODEL, ((CPU, "Conv", 3), (CUDA, "Conv", 3)), CUDA)


def test_most_of_the_work_elsewhere_is_refused_with_its_counts() -> None:
    placed = ((CPU, "Conv", 118), (CPU, "Gemm", 1), (CUDA, "Conv", 2), (CUDA, "other", 200))

    with pytest.raises(DeviceError) as caught:
        _ort_trace.verify_placement(MODEL, placed, CUDA)

    assert str(caught.value) == (
        "model.onnx: asked for CUDAExecutionProvider, and 119 of 121 convolutions and matrix products ran elsewhere "
        "(118 Conv on CPUExecutionProvider, 1 Gemm on CPUExecutionProvider)"
    )
    assert caught.value.hint.startswith("this provider has no kernels for the graph's types")
    assert caught.value.exit_code == 4


def test_a_profile_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"profile\.json: ONNX Runtime's profile holds no kernel"):
        _ort_trace.read_trace(written(tmp_path))


@pytest.mark.parametrize("text", ["", '[{"cat": "Node", "na'])
def test_a_profile_that_a_full_disk_cut_off_names_its_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)

    with pytest.raises(StageError, match=r"/profile\.json: ONNX Runtime's profile is cut off") as caught:
        _ort_trace.read_trace(tmp_path / "profile.json")

    assert caught.value.hint.startswith("free some space there")


@pytest.mark.parametrize("text", ["[{}]", '[{"cat": "Node", "name": "a_kernel_time", "args": {}}]', "[1]"])
def test_a_profile_of_another_make_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)

    with pytest.raises(StageError, match=r"profile\.json: ONNX Runtime's profile is not as expected"):
        _ort_trace.read_trace(tmp_path / "profile.json")


def test_the_first_runs_do_not_count(tmp_path: Path) -> None:
    kernels = _ort_trace.read_trace(written(tmp_path, *(event("a", "Conv", dur=ms * 1000) for ms in (9, 1, 2))))

    (layer,) = _ort_trace.layer_times(kernels, runs=2)

    assert layer.samples_ms == (1, 2)


def test_events_that_were_dropped_are_noticed(tmp_path: Path) -> None:
    kernels = _ort_trace.read_trace(written(tmp_path, event("a", "Conv"), event("b", "Conv"), event("a", "Conv")))

    with pytest.raises(StageError, match="ONNX Runtime's profile holds 1 of 2 runs of 'b'"):
        _ort_trace.layer_times(kernels, runs=2)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("node_cat_1", ("node_cat_1",)),
        ("relu_2_nchwc", ("relu_2_nchwc", "relu_2")),
        ("getitem_3_bn_nchwc", ("getitem_3_bn_nchwc", "getitem_3_bn", "getitem_3")),
        ("conv2d_1.real_token_7", ("conv2d_1.real_token_7", "conv2d_1.real")),
    ],
)
def test_the_optimizers_suffixes_come_off_one_by_one(name: str, wanted: tuple[str, ...]) -> None:
    assert _ort_trace.origins_of_kernel(name) == wanted
