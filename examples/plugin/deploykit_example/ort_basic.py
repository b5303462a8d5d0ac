"""ONNX Runtime with its basic optimizations alone: no fused kernels of its own layout, as its smallest builds have."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import BuildError
from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressCallback
from deploy_kit.engines import Engine, Session
from deploy_kit.records.artifacts import Proof

_FLOATS = {1: "fp32", 10: "fp16", 16: "bf16"}  # of onnx.TensorProto


@dataclass(frozen=True, kw_only=True)
class OrtBasicOptions:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 leaves the number to ONNX Runtime.
    """

    threads: int = 0


def build(onnx_file: Path, folder: Path, options: OrtBasicOptions, on_progress: ProgressCallback) -> None:
    """Copy the ONNX file, once it is known to load."""
    _load(onnx_file, options)
    shutil.copyfile(onnx_file, folder / ENGINE.file_name)


def prove_precision(path: Path, options: OrtBasicOptions) -> Proof:
    """Count the convolutions of the graph as ONNX Runtime optimized it, by what they compute in."""
    onnx, runtime = need("onnx", by="engine 'ort_basic'"), need("onnxruntime", by="engine 'ort_basic'")
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(runtime, options)
        settings.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        graph = onnx.load(settings.optimized_model_filepath).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    counts = Counter(
        "int8" if node.op_type == "QLinearConv" else _FLOATS.get(types.get(node.input[1], 0), "fp32")
        for node in graph.node
        if node.op_type in ("Conv", "QLinearConv")
    )
    counted = tuple(("Conv", dtype, n) for dtype, n in sorted(counts.items()))
    return Proof(source="ONNX Runtime's optimized graph", counts=counted)


def open_session(path: Path, options: OrtBasicOptions) -> Session:
    """Load the file."""
    return _OrtBasicSession(_load(path, options))


def why_unavailable() -> str:
    """Return why it cannot run here: the CPU is always there."""
    return ""


class _OrtBasicSession:
    """ONNX Runtime behind the `Session` seam."""

    def __init__(self, session: Any) -> None:
        self._session = session
        entry = session.get_inputs()[0]
        self._input = entry.name
        self._feeds: dict[str, np.ndarray] = {}
        self._logits = np.empty(0, np.float32)
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else 0
        self.settings: Mapping[str, str] = {"optimizations": "basic"}

    def bind(self, image: np.ndarray) -> None:
        """Keep the input."""
        self._feeds = {self._input: image}

    def run(self) -> None:
        """Compute."""
        self._logits = self._session.run(None, self._feeds)[0]

    def fetch(self) -> np.ndarray:
        """Return the logits."""
        return np.asarray(self._logits, np.float32)


def _settings(runtime: Any, options: OrtBasicOptions) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.log_severity_level = 3
    return settings


def _load(path: Path, options: OrtBasicOptions) -> Any:
    runtime = need("onnxruntime", by="engine 'ort_basic'")
    try:
        return runtime.InferenceSession(str(path), _settings(runtime, options), providers=["CPUExecutionProvider"])
    except RuntimeError as error:
        raise BuildError(f"{path}: ONNX Runtime cannot load it: {error}") from error


ENGINE = Engine(
    package="onnxruntime",
    file_name="model.onnx",
    options=OrtBasicOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
)
