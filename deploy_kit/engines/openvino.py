"""OpenVINO on the CPU. The engine is its IR (xml and bin); the inference precision is always set and recorded."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deploy_kit.engines import Engine, Session
from deploy_kit.errors import BuildError, RecipeError
from deploy_kit.lazy import need
from deploy_kit.records import Proof
from deploy_kit.watch import Watch, silent

_DTYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_COMPUTE = {"Convolution": "Conv", "FullyConnected": "Gemm", "MatMul": "Gemm"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 takes every core this process may use.
        inference_precision: What the float part computes in. OpenVINO's own default differs from machine to machine
            (bf16 where the processor has it), so this is always set.
    """

    threads: int = 0
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"

    def __post_init__(self) -> None:
        """Refuse a number of threads that cannot be.

        Raises:
            RecipeError: It is negative.
        """
        if self.threads < 0:
            raise RecipeError(f"engine 'openvino'.threads: expected 0 or more, found {self.threads}")


def _read(path: Path) -> tuple[Any, Any]:
    openvino = need("openvino", by="engine 'openvino'")
    core = openvino.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        raise BuildError(f"{path}: OpenVINO cannot read it: {error}") from error


def _compile(path: Path, options: Options) -> Any:
    core, model = _read(path)
    threads = options.threads or len(os.sched_getaffinity(0))
    properties = {
        "INFERENCE_PRECISION_HINT": options.inference_precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        return core.compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise BuildError(f"{path}: OpenVINO cannot compile it: {error}") from error


def build(onnx_file: Path, folder: Path, options: Options, watch: Watch = silent) -> None:
    """Convert to IR without touching a weight (no silent fp16 compression), and compile it once.

    Raises:
        BuildError: OpenVINO refuses the graph, or is known to crash on it.
    """
    from deploy_kit import graph, lint

    openvino = need("openvino", by="engine 'openvino'")
    _, model = _read(onnx_file)
    for fault in lint.quantized_norms(graph.load(onnx_file)):
        raise BuildError(f"{onnx_file}: {fault.code}: node '{fault.node}': {fault.text}", hint=fault.cure)
    path = folder / ENGINE.file_name
    openvino.save_model(model, path, compress_to_fp16=False)
    _compile(path, options)


def prove_precision(path: Path, options: Options) -> Proof:
    """Count the convolutions and matrix products of the compiled model by their runtime precision."""
    found: Counter[tuple[str, str]] = Counter()
    for node in _compile(path, options).get_runtime_model().get_ops():
        facts = node.get_rt_info()
        kind = _COMPUTE.get(facts["layerType"].astype(str) if "layerType" in facts else "")
        if kind:
            precision = facts["runtimePrecision"].astype(str)
            found[kind, _DTYPES.get(precision, precision)] += 1
    return Proof(source="OpenVINO's runtime model", counts=tuple((op, t, n) for (op, t), n in sorted(found.items())))


class _OpenVinoSession:
    """A compiled model behind the `Session` seam."""

    def __init__(self, path: Path, options: Options) -> None:
        self._openvino = need("openvino", by="engine 'openvino'")
        compiled = _compile(path, options)
        self._request = compiled.create_infer_request()
        first = compiled.input(0).partial_shape[0]
        self.batch = first.get_length() if first.is_static else 0
        self.settings: Mapping[str, str] = {
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
            "inference_precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
            "device": ",".join(compiled.get_property("EXECUTION_DEVICES")),
        }

    def bind(self, image: np.ndarray) -> None:
        self._request.set_input_tensor(self._openvino.Tensor(np.ascontiguousarray(image), shared_memory=False))

    def run(self) -> None:
        self._request.infer()

    def fetch(self) -> np.ndarray:
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


def open_session(path: Path, options: Options) -> Session:
    """Compile the IR for the CPU."""
    return _OpenVinoSession(path, options)


def hindrance() -> str:
    """Say that the CPU is always there."""
    return ""


ENGINE = Engine(
    package="openvino",
    file_name="model.xml",
    options=Options,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    hindrance=hindrance,
)
