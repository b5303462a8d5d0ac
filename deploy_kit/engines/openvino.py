"""OpenVINO on the CPU, a GPU or an NPU of Intel. The engine is its IR (xml and bin).

The inference precision is always set, and where it runs is read from the compiled model.
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
from deploy_kit.engines import Batches, Engine, Session
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Proof
from deploy_kit.records.layer_times import LayerTime, Trace

_DTYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_COMPUTE = {"Convolution": "Conv", "FullyConnected": "Gemm", "MatMul": "Gemm"}
_DEVICE = re.compile(r"(CPU|GPU|NPU|AUTO)(\.\d+)?")
_SETTLING = 5  # profiled runs before those that count
# What its ONNX reader calls the convolution inside a node that also has a bias.
_PART = "/WithoutBiases"
_IDLE = frozenset({"Const", "Input", "Output", "Result"})  # they hold, and compute nothing
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
        threads: Threads of one run; 0 takes every core this process may use.
        inference_precision: What the float part computes in. OpenVINO's own default differs from machine to machine
            (bf16 where the processor has it), so this is always set.
        device: ``CPU``, ``GPU`` (``GPU.1`` for the second), ``NPU``, or ``AUTO``, which leaves the choice to OpenVINO.
    """

    threads: int = 0
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    device: str = "CPU"

    def __post_init__(self) -> None:
        """Refuse a number of threads or a device that cannot be.

        Raises:
            RecipeError: The number is negative, or the device is none of OpenVINO's.
        """
        if not _DEVICE.fullmatch(self.device.upper()):
            raise RecipeError(
                f"engine 'openvino'.device: expected CPU, GPU, NPU or AUTO, found '{self.device}'",
                hint="for an NVIDIA GPU take engine 'tensorrt', or 'onnxruntime' with device cuda:0",
            )
        if self.threads < 0:
            raise RecipeError(f"engine 'openvino'.threads: expected 0 or more, found {self.threads}")


def _read(path: Path) -> tuple[Any, Any]:
    openvino = need("openvino", by="engine 'openvino'")
    core = openvino.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        raise BuildError(f"{path}: OpenVINO cannot read it: {error}") from error


def _compile(path: Path, options: OpenVinoOptions, *, tensors: tuple[str, ...] = (), **more: Any) -> Any:
    """Compile for the device asked for, and for no other; `tensors` within the graph become outputs behind its own.

    Raises:
        DeviceError: The device is not there, or another one would run.
        BuildError: The device is there and refuses the model, or the model has no such tensor.
    """
    core, model = _read(path)
    if tensors:
        try:
            model.add_outputs(list(tensors))
        except RuntimeError as error:
            raise BuildError(f"{path}: OpenVINO finds no tensor to observe: {error}") from error
    device = options.device.upper()
    properties = {"INFERENCE_PRECISION_HINT": options.inference_precision, "PERFORMANCE_HINT": "LATENCY", **more}
    if device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = options.threads or environment.usable_cores()
    if device == "AUTO":  # else it answers from the CPU until the device it chose is ready
        properties["ENABLE_STARTUP_FALLBACK"] = False
    try:
        compiled = core.compile_model(model, device, properties)
    except RuntimeError as error:
        if not _there(core, device):
            raise DeviceError(
                f"{path}: asked for device '{device}', OpenVINO finds {', '.join(core.available_devices)}: "
                f"{' '.join(str(error).split())}",
                hint=_NEEDS.get(device.partition(".")[0], ""),
            ) from error
        raise BuildError(f"{path}: OpenVINO cannot compile it: {error}") from error
    _verify_device(path, device, tuple(compiled.get_property("EXECUTION_DEVICES")))
    return compiled


def _there(core: Any, device: str) -> bool:
    """Whether OpenVINO finds a device; it lists one of several with its number."""
    return device == "AUTO" or any(device in (found, found.partition(".")[0]) for found in core.available_devices)


def _verify_device(path: Path, asked: str, used: tuple[str, ...]) -> None:
    """Refuse a model that runs elsewhere than was asked for; ``AUTO`` asks for nothing.

    Raises:
        DeviceError: One of the devices it runs on is another.
    """
    family = asked.partition(".")[0]
    if asked != "AUTO" and (not used or any(device.partition(".")[0] != family for device in used)):
        raise DeviceError(
            f"{path}: asked for device '{asked}', OpenVINO runs it on {', '.join(used) or 'none that it names'}",
            hint=_NEEDS.get(family, ""),
        )


def build(onnx_file: Path, folder: Path, options: OpenVinoOptions, on_progress: ProgressCallback = no_progress) -> None:
    """Convert to IR without touching a weight (no silent fp16 compression), and compile it once.

    Raises:
        BuildError: OpenVINO refuses the graph.
    """
    openvino = need("openvino", by="engine 'openvino'")
    _, model = _read(onnx_file)
    path = folder / ENGINE.file_name
    openvino.save_model(model, path, compress_to_fp16=False)
    _compile(path, options)


def prove_precision(path: Path, options: OpenVinoOptions) -> Proof:
    """Count the convolutions and matrix products of the compiled model by their runtime precision."""
    compiled = _compile(path, options)
    device = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
    found, placed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        layer = facts["layerType"].astype(str) if "layerType" in facts else ""
        kind = _COMPUTE.get(layer)
        if kind:
            precision = facts["runtimePrecision"].astype(str)
            found[kind, _DTYPES.get(precision, precision)] += 1
        if layer not in _IDLE:
            placed[device, kind or "other"] += 1
    return Proof(
        source="OpenVINO's runtime model",
        counts=tuple((op, t, n) for (op, t), n in sorted(found.items())),
        placement=tuple((place, op, n) for (place, op), n in sorted(placed.items())),
    )


def profile(path: Path, options: OpenVinoOptions, image: np.ndarray, runs: int) -> Trace:
    """Time each layer over `runs` runs, with OpenVINO's own counters, in a session of its own."""
    openvino = need("openvino", by="engine 'openvino'")
    compiled = _compile(path, options, PERF_COUNT=True)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(image), shared_memory=False))
    made_of = _made_of(compiled.get_runtime_model())
    runs_ms, times, ops = list[float](), dict[str, list[float]](), dict[str, str]()
    for done in range(_SETTLING + runs):
        begun = time.perf_counter_ns()
        request.infer()
        runs_ms.append((time.perf_counter_ns() - begun) / 1e6)
        for layer in request.profiling_info:
            # In a run that took it less than its clock's step, a layer counts as not run: 0 ms, not no time.
            samples = times.setdefault(layer.node_name, [0.0] * (_SETTLING + runs))
            samples[done] = layer.real_time.total_seconds() * 1e3
            ops[layer.node_name] = layer.node_type
    return Trace(
        source="OpenVINO's performance counters",
        runs_ms=tuple(runs_ms[-runs:]),
        layers=tuple(
            LayerTime(name=name, op=ops[name], origins=made_of.get(name, ()), samples_ms=tuple(samples[-runs:]))
            for name, samples in times.items()
            if any(samples)
        ),
    )


def observe(
    path: Path, options: OpenVinoOptions, tensors: tuple[str, ...], batches: Batches
) -> Iterator[tuple[np.ndarray, ...]]:
    """Compute the output and these tensors of the graph, with the settings of `open_session`."""
    openvino = need("openvino", by="engine 'openvino'")
    request = _compile(path, options, tensors=tensors).create_infer_request()
    for batch in batches:
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(batch), shared_memory=False))
        request.infer()
        yield tuple(np.array(request.get_output_tensor(index).data) for index in range(1 + len(tensors)))


def _made_of(model: Any) -> dict[str, tuple[str, ...]]:
    """Read for each node of the runtime model which nodes of the graph it was made of."""
    found = {}
    for node in model.get_ops():
        facts = node.get_rt_info()
        names = facts["originalLayersNames"].astype(str).split(",") if "originalLayersNames" in facts else []
        found[node.get_friendly_name()] = tuple(dict.fromkeys(n.removesuffix(_PART) for n in names if n))
    return found


class _OpenVinoSession:
    """A compiled model behind the `Session` seam."""

    def __init__(self, path: Path, options: OpenVinoOptions) -> None:
        self._openvino = need("openvino", by="engine 'openvino'")
        compiled = _compile(path, options)
        self._request = compiled.create_infer_request()
        first = compiled.input(0).partial_shape[0]
        self.batch = first.get_length() if first.is_static else 0
        self.settings: Mapping[str, str] = {
            "device": ", ".join(compiled.get_property("EXECUTION_DEVICES")),
            **_told(compiled),
        }

    def bind(self, image: np.ndarray) -> None:
        self._request.set_input_tensor(self._openvino.Tensor(np.ascontiguousarray(image), shared_memory=False))

    def run(self) -> None:
        self._request.infer()

    def fetch(self) -> np.ndarray:
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


def _told(compiled: Any) -> dict[str, str]:
    """Read back what the compiled model runs with, as far as its device says."""
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    values = {name: compiled.get_property(key) for name, key in _SETTINGS.items() if key in known}
    return {name: value.to_string() if hasattr(value, "to_string") else str(value) for name, value in values.items()}


def open_session(path: Path, options: OpenVinoOptions) -> Session:
    """Compile the IR for the device."""
    return _OpenVinoSession(path, options)


def why_unavailable() -> str:
    """Say that the CPU is always there; whether another device is shows when an engine is built or opened for it."""
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
)
