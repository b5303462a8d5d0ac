"""Where an engine runs: a device that is not here is refused, never replaced; placement is what an authority counts."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
import openvino as ov
import pytest

from deploy_kit.base.errors import DeviceError, RecipeError
from deploy_kit.engines import onnxruntime, openvino

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

CUDA = onnxruntime.OnnxRuntimeOptions(device="cuda:0")
without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="onnxruntime is built with CUDA here"
)
without_gpu = pytest.mark.skipif(
    any(device.startswith("GPU") for device in ov.Core().available_devices), reason="OpenVINO finds a GPU here"
)


@without_cuda
@pytest.mark.parametrize("step", ["build", "prove", "open"])
def test_cuda_that_falls_back_to_the_cpu_is_refused_with_what_is_needed(
    step: str, line: "Line", tmp_path: Path
) -> None:
    path = line.store.path(line.lean)

    with pytest.raises(DeviceError) as caught:
        if step == "build":
            onnxruntime.build(path, tmp_path, CUDA)
        elif step == "prove":
            onnxruntime.prove_precision(path, CUDA)
        else:
            onnxruntime.open_session(path, CUDA)

    assert str(caught.value) == (
        f"{path}: asked for device 'cuda:0' (CUDAExecutionProvider), ONNX Runtime fell back to CPUExecutionProvider"
    )
    assert caught.value.hint == (
        f"onnxruntime {ort.__version__} here is built without CUDA: "
        "pip uninstall onnxruntime && pip install onnxruntime-gpu"
    )


@without_cuda
def test_a_build_with_cuda_and_no_driver_is_told_what_it_stands_on(
    line: "Line", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])

    with pytest.raises(DeviceError) as caught:
        onnxruntime.open_session(line.store.path(line.lean), CUDA)

    assert caught.value.hint.startswith(
        "it needs an NVIDIA driver, and CUDA and cuDNN of the versions it was built for"
    )


@without_cuda
def test_the_refusal_crosses_the_worker_as_a_fault_of_the_device(line: "Line", tmp_path: Path) -> None:
    path = str(line.store.path(line.lean))

    with (
        line.connection.worker() as worker,
        pytest.raises(DeviceError, match="fell back to CPUExecutionProvider") as caught,
    ):
        worker.ask("build", path, engine="onnxruntime", onnx=path, folder=str(tmp_path), options={"device": "cuda"})

    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("device", "place"), [("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:0", ("cuda", 0)), ("cuda:3", ("cuda", 3))]
)
def test_devices_of_onnxruntime(device: str, place: tuple[str, int]) -> None:
    assert onnxruntime.OnnxRuntimeOptions(device=device).place == place


@pytest.mark.parametrize("device", ["GPU", "cuda:", "cuda:x", "", "CPU", "dla:0"])
def test_a_device_that_onnxruntime_cannot_have_is_refused(device: str) -> None:
    with pytest.raises(RecipeError) as caught:
        onnxruntime.OnnxRuntimeOptions(device=device)

    assert str(caught.value) == f"engine 'onnxruntime'.device: expected 'cpu' or 'cuda:N', found '{device}'"
    assert caught.value.hint == "for a GPU or NPU of Intel take engine 'openvino'"


@pytest.mark.parametrize("device", ["cuda:0", "", "GPU:1", "TPU"])
def test_a_device_that_openvino_cannot_have_is_refused(device: str) -> None:
    with pytest.raises(RecipeError) as caught:
        openvino.OpenVinoOptions(device=device)

    assert str(caught.value) == f"engine 'openvino'.device: expected CPU, GPU, NPU or AUTO, found '{device}'"
    assert caught.value.hint == "for an NVIDIA GPU take engine 'tensorrt', or 'onnxruntime' with device cuda:0"


@without_gpu
@pytest.mark.parametrize("device", ["GPU", "GPU.1", "gpu"])
def test_a_gpu_that_openvino_does_not_find_is_refused(device: str, line: "Line") -> None:
    path = line.store.path(line.built("fp32", "openvino"))

    with pytest.raises(DeviceError) as caught:
        openvino.open_session(path, openvino.OpenVinoOptions(device=device))

    found = ", ".join(ov.Core().available_devices)
    assert str(caught.value).startswith(f"{path}: asked for device '{device.upper()}', OpenVINO finds {found}: ")
    assert caught.value.hint == "it needs an Intel GPU and its OpenCL driver: apt install intel-opencl-icd"


@pytest.mark.parametrize("used", [("CPU",), ("GPU.0", "CPU"), ()])
def test_a_model_that_runs_elsewhere_than_asked_is_refused(used: tuple[str, ...]) -> None:
    with pytest.raises(DeviceError) as caught:
        openvino._verify_device(Path("model.xml"), "GPU", used)

    said = ", ".join(used) or "none that it names"
    assert str(caught.value) == f"model.xml: asked for device 'GPU', OpenVINO runs it on {said}"


@pytest.mark.parametrize(("asked", "used"), [("GPU", ("GPU.0",)), ("GPU.1", ("GPU.1",)), ("AUTO", ("CPU",))])
def test_a_model_that_runs_where_asked_is_accepted(asked: str, used: tuple[str, ...]) -> None:
    openvino._verify_device(Path("model.xml"), asked, used)


@without_gpu
def test_auto_says_what_it_took(line: "Line") -> None:
    session = openvino.open_session(
        line.store.path(line.built("fp32", "openvino")), openvino.OpenVinoOptions(device="AUTO")
    )

    assert session.settings["device"] == "CPU"


def test_onnxruntime_places_every_node_of_its_optimized_graph(line: "Line", tmp_path: Path) -> None:
    path = line.store.path(line.graph("int8"))
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    wanted = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)

    proof = onnxruntime.prove_precision(path, onnxruntime.OnnxRuntimeOptions())

    assert proof.places == {"CPUExecutionProvider": wanted.total()}
    assert ("CPUExecutionProvider", "Conv", wanted["QLinearConv"]) in proof.placement


def test_openvino_places_every_convolution_on_the_device_that_executes(line: "Line") -> None:
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(line.store.path(line.lean)).graph.node)

    proof = line.built("fp32", "openvino").proof

    assert proof is not None
    assert list(proof.places) == ["CPU"]
    assert ("CPU", "Conv", convolutions) in proof.placement


def test_openvino_tells_whether_its_threads_are_pinned(line: "Line") -> None:
    session = openvino.open_session(line.store.path(line.built("fp32", "openvino")), openvino.OpenVinoOptions())

    assert session.settings["pinned"] in ("True", "False")
