"""ONNX Runtime on the CPU. The engine is the ONNX file itself: its optimizer runs when the file is loaded."""

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.engines import Engine, Session
from deploy_kit.errors import BuildError, InputError, RecipeError
from deploy_kit.lazy import need
from deploy_kit.records import Proof
from deploy_kit.watch import Watch, silent

# Operations that do multiply-accumulates, by the name ONNX Runtime gives them after its optimizer.
_COMPUTE = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "QLinearConv": "Conv",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
    "QGemm": "Gemm",
    "MatMul": "Gemm",
    "QLinearMatMul": "Gemm",
}
_INTEGER_MAXIMUM = re.compile(r"implementation for (Max|Min)\(")
_DTYPES = {1: "fp32", 10: "fp16", 16: "bf16"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 takes every core this process may use.
        optimize: Let its optimizer work; without it the graph is computed node by node as it stands.
    """

    threads: int = 0
    optimize: bool = True

    def __post_init__(self) -> None:
        """Refuse a number of threads that cannot be.

        Raises:
            RecipeError: It is negative.
        """
        if self.threads < 0:
            raise RecipeError(f"engine 'onnxruntime'.threads: expected 0 or more, found {self.threads}")


def _session_options(runtime: Any, options: Options) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads or len(os.sched_getaffinity(0))
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if not options.optimize:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Its threads spin on after a run; beside other engines in turn that would slow those.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings


def _load(path: Path, settings: Any) -> Any:
    runtime = need("onnxruntime", by="engine 'onnxruntime'")
    states = runtime.capi.onnxruntime_pybind11_state
    own: tuple[type[Exception], ...] = (RuntimeError, ValueError)
    own += tuple(found for found in vars(states).values() if isinstance(found, type) and issubclass(found, Exception))
    try:
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except states.InvalidProtobuf as error:
        raise InputError(
            f"{path}: not a whole ONNX file: {error}", hint="export it again; the file may be cut off"
        ) from error
    except own as error:
        raise BuildError(f"{path}: ONNX Runtime cannot load it: {error}", hint=_advice(str(error), runtime)) from error
    used = session.get_providers()
    if used[0] != "CPUExecutionProvider":
        raise BuildError(f"{path}: asked for CPUExecutionProvider, got {used[0]}")
    return session


def _advice(error: str, runtime: Any) -> str:
    """Say what to do about an operator that this version does not have."""
    if "NOT_IMPLEMENTED" in error and _INTEGER_MAXIMUM.search(error):
        return (
            f"maxima of integers need onnxruntime 1.24, here is {runtime.__version__}: "
            "update it, or quantize with --form depthwise"
        )
    return ""


def build(onnx_file: Path, folder: Path, options: Options, watch: Watch = silent) -> None:
    """Copy the ONNX file, once it is known to load."""
    runtime = need("onnxruntime", by="engine 'onnxruntime'")
    _load(onnx_file, _session_options(runtime, options))
    shutil.copyfile(onnx_file, folder / ENGINE.file_name)


def prove_precision(path: Path, options: Options) -> Proof:
    """Count the convolutions and matrix products of ONNX Runtime's optimized graph by what they compute in."""
    runtime = need("onnxruntime", by="engine 'onnxruntime'")
    onnx = need("onnx", by="the precision proof of engine 'onnxruntime'")
    settings = _session_options(runtime, options)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        settings.optimized_model_filepath = str(optimized)
        _load(path, settings)
        graph = onnx.load(optimized).graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    found: Counter[tuple[str, str]] = Counter()
    for node in graph.node:
        if node.op_type in _COMPUTE:
            quantized = node.op_type in ("QLinearConv", "QGemm", "QLinearMatMul")
            dtype = "int8" if quantized else _DTYPES.get(weights.get(node.input[1], 1), "fp32")
            found[_COMPUTE[node.op_type], dtype] += 1
    return Proof(
        source="ONNX Runtime's optimized graph",
        counts=tuple((op, dtype, n) for (op, dtype), n in sorted(found.items())),
    )


class _OrtSession:
    """ONNX Runtime behind the `Session` seam, through I/O binding so that `run` copies nothing."""

    def __init__(self, path: Path, options: Options) -> None:
        self._runtime = need("onnxruntime", by="engine 'onnxruntime'")
        settings = _session_options(self._runtime, options)
        self._session = _load(path, settings)
        self._binding = self._session.io_binding()
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        self._output = self._session.get_outputs()[0].name
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else 0
        self.settings: Mapping[str, str] = {
            "threads": str(settings.intra_op_num_threads),
            "provider": self._session.get_providers()[0],
        }

    def bind(self, image: np.ndarray) -> None:
        self._binding.bind_cpu_input(self._input, np.ascontiguousarray(image))
        self._binding.bind_output(self._output)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def fetch(self) -> np.ndarray:
        return np.asarray(self._binding.copy_outputs_to_cpu()[0])


def open_session(path: Path, options: Options) -> Session:
    """Load the file; raise what ONNX Runtime says if it cannot."""
    return _OrtSession(path, options)


def hindrance() -> str:
    """Say that the CPU is always there."""
    return ""


ENGINE = Engine(
    package="onnxruntime",
    file_name="model.onnx",
    options=Options,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    hindrance=hindrance,
)
