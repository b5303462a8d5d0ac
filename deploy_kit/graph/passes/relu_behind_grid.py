"""Run a ReLU or Clip behind the quantizer that alone reads it, on integers: rounding to a grid is monotone.

    Q(max(x, 0)) = max(Q(x), z),    Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b))

ONNX Runtime computes a convolution on integers where a quantizer reads it directly; it drops a ReLU in between itself
where z is the smallest integer, and nowhere else.
"""

from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, integer_grids
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Move every ReLU and Clip that a convolution or matrix product feeds and one quantizer reads."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        bound = node.inputs[0].producer() if node.op_type == "QuantizeLinear" and node.inputs[0] is not None else None
        if bound is None or bound.op_type not in ("Relu", "Clip") or not _computed(bound.inputs[0]):
            continue
        grid = _grid(node)
        if grid is None:
            refused["the grid is no single constant of float32"] += 1
        elif not edit.alone(bound.outputs[0]):
            refused["others read it too"] += 1
        elif (ends := _ends(bound, *grid)) is None:
            refused["a bound is computed"] += 1
        elif ends != (None, None):
            _move(model, bound, node, ends)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _computed(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _grid(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    scale = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    zero = integer_grids.zero_point(node)
    if scale is None or zero is None or scale.size != 1 or scale.dtype != ir.DataType.FLOAT or zero.itemsize != 1:
        return None
    return scale.numpy().reshape(()), zero.reshape(())


def _ends(bound: ir.Node, scale: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None] | None:
    """Return the bounds as integers, None for one at the end of the type; None alone where one is computed."""
    given: list[np.ndarray | None] = [np.zeros((), np.float32), None]
    if bound.op_type == "Clip":
        bounds = (*bound.inputs[1:3], None, None)[:2]
        tensors = [None if one is None else ir.convenience.get_const_tensor(one) for one in bounds]
        if any(one is not None and tensor is None for one, tensor in zip(bounds, tensors, strict=True)):
            return None
        given = [None if tensor is None else tensor.numpy().reshape(()) for tensor in tensors]
    limits = np.iinfo(zero.dtype)
    found: list[np.ndarray | None] = []
    for value, limit in zip(given, (limits.min, limits.max), strict=True):
        integer = (
            limit
            if value is None
            else np.clip(np.rint(value / scale) + zero.astype(np.float32), limits.min, limits.max)
        )
        found.append(None if integer == limit else np.asarray(integer).astype(zero.dtype))
    return found[0], found[1]


def _move(
    model: ir.Model, bound: ir.Node, quantizer: ir.Node, ends: tuple[np.ndarray | None, np.ndarray | None]
) -> None:
    result, source = quantizer.outputs[0], bound.inputs[0]
    zero = quantizer.inputs[2]
    assert zero is not None and zero.dtype is not None and source is not None
    low, high = (
        None if end is None else edit.initializer(model, f"{result.name}.{word}", end, zero.dtype)
        for end, word in zip(ends, ("low", "high"), strict=True)
    )
    quantizer.replace_input_with(0, source)
    made = ir.node("Max", [result, low]) if high is None else ir.node("Clip", [result, low, high])
    limited, name = made.outputs[0], result.name
    limited.shape, limited.type = result.shape, ir.TensorType(zero.dtype)
    model.graph.insert_after(quantizer, made)
    result.replace_all_uses_with(limited, replace_graph_outputs=True)
    made.replace_input_with(0, result)
    model.graph.remove(bound, safe=True)
    limited.name, result.name = name, edit.free_name(model, f"{name}.unbounded")
    result.type = ir.TensorType(zero.dtype)


PASS = Pass(apply=apply, promise=0.0)
