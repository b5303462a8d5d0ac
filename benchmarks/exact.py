"""A graph in float64: what it computes with its float32 weights as they are stored, without rounding on the way."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def logits(path: Path, image: np.ndarray) -> np.ndarray:
    """Compute a float32 graph on (N, C, H, W) with ONNX's reference evaluator: (N, classes) float64."""
    model = _widened(onnx.load(path))
    found: np.ndarray = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image.astype(np.float64)})[0]
    if found.dtype != np.float64:
        raise AssertionError(f"{path}: computed in {found.dtype}, float64 was wanted")
    return found


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Type a float32 graph in float64."""
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    for tensor in model.graph.initializer:
        if tensor.data_type == single:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return model
