"""OpenVINO on the CPU, an Intel GPU or an Intel NPU. The engine is its IR (xml and bin).

The inference precision is always set, and the device that runs the model is read from the compiled model.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deploy_kit.base.errors import BuildError, DeviceError, RecipeError
from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.engines import Batches, Engine, Session, verify_threads
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Proof
from deploy_kit.records.layer_times import LayerTime, Trace

_DTYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_COMPUTE = {"Convolution": "Conv", "FullyConnected": "Gemm", "MatMul": "Gemm"}
_DEVICE = re.compile(r"(CPU|GPU|NPU|AUTO)(\.\d+)?")
_SETTLING = 5  # profiled runs before those that count
# Suffix of its ONNX reader for the convolution within a node that also has a bias.
_PART = "/WithoutBiases"
_IDLE = frozenset({"Const", "Input", "Output", "Result"})  # layers that compute nothing
_NEEDS = {
    "GPU": "it needs an Intel GPU and its OpenCL driver: apt install intel-opencl-icd",
    "NPU": "it needs an Intel NPU and its driver: https://github.com/intel/linux-npu-driver",
}
_SETTINGS = {
    "threads": "INFERENCE_NUM_THREADS",
    "pinned": "ENABLE_CPU_PINNING",
    "inference_precision": "INFERENCE_PRECISION_HINT",
}


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 uses every core that this process may use.
        inference_precision: Type that the float part computes in. OpenVINO's own default differs between machines (bf16
            where the processor supports it), so this is always set.
        device: Device to run on: ``CPU``, ``GPU`` (``GPU.1`` for the second), ``NPU``, or ``AUTO``, which leaves the
            choice to OpenVINO.
    """

    threads: int = 0
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    device: str = "CPU"

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: No machine has so many threads, or OpenVINO knows no such device.
        """
        if not _DEVICE.fullmatch(self.device.upper()):
            raise RecipeError(
                f"engine 'openvino'.device: expected CPU, GPU, NPU or AUTO, found '{self.device}'",
                hint="for an NVIDIA GPU take engine 'tensorrt', or 'onnxruntime' with device cuda:0",
            )
        verify_threads("openvino", self.threads)


def _read_model(path: Path) -> tuple[Any, Any]:
    openvino = need("openvino", by="engine 'openvino'")
    core = openvino.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        raise BuildError(f"{path}: OpenVINO cannot read it: {error}") from error


def _compile(path: Path, options: OpenVinoOptions, *, tensors: tuple[str, ...] = (), **more: Any) -> Any:
    """Compile a model for the requested device, and for no other.

    Args:
        path: IR or ONNX file.
        options: Options of the engine.
        tensors: Names of tensors in the graph that become further outputs.
        **more: Further properties of OpenVINO.

    Raises:
        DeviceError: The device is not available, or another one would run the model.
        BuildError: The device refuses the model, or the model has no such tensor.
    """
    core, model = _read_model(path)
    if tensors:
        try:
            model.add_outputs(list(tensors))
        except RuntimeError as error:
            raise BuildError(f"{path}: OpenVINO finds no tensor to observe: {error}") from error
    device = options.device.upper()
    properties = {"INFERENCE_PRECISION_HINT": options.inference_precision, "PERFORMANCE_HINT": "LATENCY", **more}
    if device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = options.threads or environment.usable_cores()
    if device == "AUTO":  # otherwise it runs on the CPU until the chosen device is ready
        properties["ENABLE_STARTUP_FALLBACK"] = False
    try:
        compiled = core.compile_model(model, device, properties)
    except RuntimeError as error:
        if not _device_available(core, device):
            raise DeviceError(
                f"{path}: asked for device '{device}', OpenVINO finds {', '.join(core.available_devices)}: "
                f"{' '.join(str(error).split())}",
                hint=_NEEDS.get(device.partition(".")[0], ""),
            ) from error
        raise BuildError(f"{path}: OpenVINO cannot compile it: {error}") from error
    _verify_device(path, device, tuple(compiled.get_property("EXECUTION_DEVICES")))
    return compiled


def _device_available(core: Any, device: str) -> bool:
    """Return whether OpenVINO finds a device; where there are several of a kind, it lists them with numbers."""
    return device == "AUTO" or any(device in (name, name.partition(".")[0]) for name in core.available_devices)


def _verify_device(path: Path, requested: str, used: tuple[str, ...]) -> None:
    """Refuse a model that runs on another device than was requested; ``AUTO`` requests none.

    Raises:
        DeviceError: The model runs on another device.
    """
    family = requested.partition(".")[0]
    if requested != "AUTO" and (not used or any(device.partition(".")[0] != family for device in used)):
        raise DeviceError(
            f"{path}: asked for device '{requested}', OpenVINO runs it on {', '.join(used) or 'none that it names'}",
            hint=_NEEDS.get(family, ""),
        )


def build(onnx_file: Path, folder: Path, options: OpenVinoOptions, on_progress: ProgressCallback = no_progress) -> None:
    """Convert to IR without changing a weight (OpenVINO's default compresses to fp16), and compile it once.

    Raises:
        BuildError: OpenVINO refuses the graph.
        DeviceError: The device is not available.
    """
    openvino = need("openvino", by="engine 'openvino'")
    _, model = _read_model(onnx_file)
    path = folder / ENGINE.file_name
    openvino.save_model(model, path, compress_to_fp16=False)
    _compile(path, options)


def prove_precision(path: Path, options: OpenVinoOptions) -> Proof:
    """Count the convolutions and matrix products of the compiled model by their runtime precision."""
    compiled = _compile(path, options)
    device = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
    counts, placed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        layer = facts["layerType"].astype(str) if "layerType" in facts else ""
        kind = _COMPUTE.get(layer)
        if kind:
            precision = facts["runtimePrecision"].astype(str)
            counts[kind, _DTYPES.get(precision, precision)] += 1
        if layer not in _IDLE:
            placed[device, kind or "other"] += 1
    return Proof(
        source="OpenVINO's runtime model",
        counts=tuple((op, dtype, n) for (op, dtype), n in sorted(counts.items())),
        placement=tuple((place, op, n) for (place, op), n in sorted(placed.items())),
    )


def profile(path: Path, options: OpenVinoOptions, image: np.ndarray, runs: int) -> Trace:
    """Time each layer over `runs` runs, with OpenVINO's own counters, in a session of its own."""
    openvino = need("openvino", by="engine 'openvino'")
    compiled = _compile(path, options, PERF_COUNT=True)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(image), shared_memory=False))
    origins = _original_names(compiled.get_runtime_model())
    runs_ms, times, ops = list[float](), dict[str, list[float]](), dict[str, str]()
    for done in range(_SETTLING + runs):
        begun = time.perf_counter_ns()
        request.infer()
        runs_ms.append((time.perf_counter_ns() - begun) / 1e6)
        for layer in request.profiling_info:
            # A layer that took less than a step of the clock is listed as not executed; it counts as 0 ms.
            samples = times.setdefault(layer.node_name, [0.0] * (_SETTLING + runs))
            samples[done] = layer.real_time.total_seconds() * 1e3
            ops[layer.node_name] = layer.node_type
    return Trace(
        source="OpenVINO's performance counters",
        runs_ms=tuple(runs_ms[-runs:]),
        layers=tuple(
            LayerTime(name=name, op=ops[name], origins=origins.get(name, ()), samples_ms=tuple(samples[-runs:]))
            for name, samples in times.items()
            if any(samples)
        ),
    )


def observe(
    path: Path, options: OpenVinoOptions, tensors: tuple[str, ...], batches: Batches
) -> Iterator[tuple[np.ndarray, ...]]:
    """Compute the output and these tensors of the graph, with the same settings as `open_session`."""
    openvino = need("openvino", by="engine 'openvino'")
    request = _compile(path, options, tensors=tensors).create_infer_request()
    for batch in batches:
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(batch), shared_memory=False))
        request.infer()
        yield tuple(np.array(request.get_output_tensor(index).data) for index in range(1 + len(tensors)))


def _original_names(model: Any) -> dict[str, tuple[str, ...]]:
    """Read for each node of the runtime model the names of the graph's nodes that it was made from."""
    origins = {}
    for node in model.get_ops():
        facts = node.get_rt_info()
        names = facts["originalLayersNames"].astype(str).split(",") if "originalLayersNames" in facts else []
        origins[node.get_friendly_name()] = tuple(dict.fromkeys(n.removesuffix(_PART) for n in names if n))
    return origins


class _OpenVinoSession:
    """A compiled model as a `Session`."""

    def __init__(self, path: Path, options: OpenVinoOptions) -> None:
        self._openvino = need("openvino", by="engine 'openvino'")
        compiled = _compile(path, options)
        self._request = compiled.create_infer_request()
        first = compiled.input(0).partial_shape[0]
        self.batch = first.get_length() if first.is_static else 0
        self.settings: Mapping[str, str] = {
            "device": ", ".join(compiled.get_property("EXECUTION_DEVICES")),
            **_read_settings(compiled),
        }

    def bind(self, image: np.ndarray) -> None:
        self._request.set_input_tensor(self._openvino.Tensor(np.ascontiguousarray(image), shared_memory=False))

    def run(self) -> None:
        self._request.infer()

    def fetch(self) -> np.ndarray:
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


def _read_settings(compiled: Any) -> dict[str, str]:
    """Read the settings that the compiled model runs with, as far as its device reports them."""
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    values = {name: compiled.get_property(key) for name, key in _SETTINGS.items() if key in known}
    return {name: value.to_string() if hasattr(value, "to_string") else str(value) for name, value in values.items()}


def open_session(path: Path, options: OpenVinoOptions) -> Session:
    """Compile the IR for the device.

    Raises:
        BuildError: OpenVINO refuses the file.
        DeviceError: The device is not available.
    """
    return _OpenVinoSession(path, options)


def why_unavailable() -> str:
    """Return nothing: the CPU is always available, and other devices are checked when an engine is built or loaded."""
    return ""


def _place(accelerator: str) -> dict[str, Any] | None:
    return {"device": accelerator} if _DEVICE.fullmatch(accelerator) else None


ENGINE = Engine(
    package="openvino",
    file_name="model.xml",
    options=OpenVinoOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
    profile=profile,
    observe=observe,
    place=_place,
    saturates=True,  # OpenVINO 2026.4.1 on AVX2; measured: docs/int8.md
)
