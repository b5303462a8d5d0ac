"""ONNX's reference evaluator: pure numpy, slow and without an optimizer. Other engines can be compared with it."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import BuildError
from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.engines import Batches, Engine, Session
from deploy_kit.records.artifacts import Proof

_Q_DQ_OPSET = 19  # first operator set whose DequantizeLinear the evaluator has


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Options of a recipe's build entry: none."""


def build(
    onnx_file: Path, folder: Path, options: ReferenceOptions, on_progress: ProgressCallback = no_progress
) -> None:
    """Copy the ONNX file, after ONNX's checker has accepted it.

    Raises:
        BuildError: The checker refuses the file.
    """
    onnx = need("onnx", by="engine 'reference'")
    try:
        onnx.checker.check_model(str(onnx_file), full_check=True)
    except onnx.checker.ValidationError as error:
        raise BuildError(f"{onnx_file}: ONNX's checker refuses it: {error}") from error
    shutil.copyfile(onnx_file, folder / ENGINE.file_name)


def prove_precision(path: Path, options: ReferenceOptions) -> Proof:
    """Count the graph's convolutions; those fed by DequantizeLinear count as int8, though computed in float."""
    graph = _load_model(path).graph
    producer = {name: node.op_type for node in graph.node for name in node.output}
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    dtypes = {1: "fp32", 10: "fp16", 16: "bf16"}
    counts: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            quantized = producer.get(node.input[0]) == producer.get(node.input[1]) == "DequantizeLinear"
            dtype = "int8" if quantized else dtypes.get(weights.get(node.input[1], 1), "fp32")
            counts[dtype] = counts.get(dtype, 0) + 1
    return Proof(
        source="the ONNX graph",
        counts=tuple(("Conv", dtype, n) for dtype, n in sorted(counts.items())),
        remark="quantized operations are emulated in float",
    )


def _load_model(path: Path) -> Any:
    onnx = need("onnx", by="engine 'reference'")
    try:
        return onnx.load(path)
    except (need("google.protobuf.message", by="engine 'reference'").DecodeError, ValueError, OSError) as error:
        raise BuildError(f"{path}: cannot be read as ONNX: {error}") from error


def _with_supported_opset(model: Any) -> Any:
    """Convert a quantized graph to the first operator set whose DequantizeLinear the evaluator has."""
    quantized = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    default = next(entry.version for entry in model.opset_import if not entry.domain)
    if not quantized or default >= _Q_DQ_OPSET:
        return model
    return need("onnx.version_converter", by="engine 'reference'").convert_version(model, _Q_DQ_OPSET)


class _ReferenceSession:
    """The evaluator as a `Session`."""

    def __init__(self, path: Path) -> None:
        reference = need("onnx.reference", by="engine 'reference'")
        model = _load_model(path)
        self._evaluator = reference.ReferenceEvaluator(_with_supported_opset(model))
        entry = model.graph.input[0]
        self._input, self._output = entry.name, model.graph.output[0].name
        self.batch = entry.type.tensor_type.shape.dim[0].dim_value
        self.settings: Mapping[str, str] = {"arithmetic": "numpy"}
        self._feeds: dict[str, np.ndarray] = {}
        self._logits = np.empty(0, np.float32)

    def bind(self, image: np.ndarray) -> None:
        self._feeds = {self._input: image}

    def run(self) -> None:
        self._logits = self._evaluator.run(None, self._feeds)[0]

    def fetch(self) -> np.ndarray:
        return np.array(self._logits, dtype=np.float32)

    def compute(self, image: np.ndarray, tensors: tuple[str, ...]) -> tuple[np.ndarray, ...]:
        """Compute the output and the tensors of these names."""
        return tuple(self._evaluator.run([self._output, *tensors], {self._input: image}))


def observe(
    path: Path, options: ReferenceOptions, tensors: tuple[str, ...], batches: Batches
) -> Iterator[tuple[np.ndarray, ...]]:
    """Compute the output and these further outputs of the file."""
    session = _ReferenceSession(path)
    for batch in batches:
        yield session.compute(batch, tensors)


def open_session(path: Path, options: ReferenceOptions) -> Session:
    """Load the graph into the evaluator.

    Raises:
        BuildError: The file cannot be read as ONNX.
    """
    return _ReferenceSession(path)


def why_unavailable() -> str:
    """Return nothing: numpy is always available."""
    return ""


ENGINE = Engine(
    package="onnx",
    file_name="model.onnx",
    options=ReferenceOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
    observe=observe,
    typed=True,
)
