"""Write Q/DQ pairs of any program in one form: zero points stated, weights as int8 in the order that is read.

    Q(x; s) = Q(x; s, 0),    move(DQ(w)) = DQ(move(w)),    s · (u − 128) = s · ((u − 128) − 0)

ONNX Runtime 1.31.1 takes a missing zero point for one of uint8, and refuses int8. TensorFlow stores weights in another
order than a convolution reads them: behind the Transpose OpenVINO finds no weights of int8.
"""

import math
from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, integer_grids, onnx_file
from deploy_kit.graph.passes import Outcome, Pass

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
_MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def apply(model: ir.Model) -> Outcome:
    """State every zero point of a constant scale; move the integers instead of what is dequantized from them."""
    fired, refused = 0, Counter[str]()
    zeros: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in tuple(model.graph):
        if node.op_type in onnx_file.PAIR:
            fired += _state_zero(model, node, zeros) or _sign_weights(model, node)
        elif node.op_type in _MOVES and (weights := _dequantized(node)) is not None:
            reason = _move(model, weights, node)
            refused[reason] += bool(reason)
            fired += not reason
    return Outcome(fired=fired, refused=tuple(sorted((+refused).items())))


def _state_zero(model: ir.Model, node: ir.Node, zeros: dict[tuple[ir.Value, ir.DataType], ir.Value]) -> bool:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return False
    source, scale = node.inputs[0], node.inputs[1]
    tensor = ir.convenience.get_const_tensor(scale) if scale is not None else None
    if source is None or scale is None or tensor is None:
        return False
    stated = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    dtype = (node.outputs[0].dtype or stated) if node.op_type == "QuantizeLinear" else source.dtype
    if dtype not in _BYTES:
        return False
    if (scale, dtype) not in zeros:
        zeros[scale, dtype] = edit.initializer(model, f"{scale.name}.zero", np.zeros(tensor.numpy().shape), dtype)
    node.resize_inputs(3)
    node.replace_input_with(2, zeros[scale, dtype])
    node.attributes.pop("output_dtype", None)
    return True


def _sign_weights(model: ir.Model, node: ir.Node) -> bool:
    """Store weights of uint8 around 128 as int8 around 0: what OpenVINO and TensorRT take."""
    stored, zero = node.inputs[0], integer_grids.zero_point(node)
    tensor = ir.convenience.get_const_tensor(stored) if stored is not None else None
    if node.op_type != "DequantizeLinear" or stored is None or tensor is None or zero is None:
        return False
    if tensor.dtype != ir.DataType.UINT8 or not (zero == 128).all():
        return False
    integers = tensor.numpy().astype(np.int16) - 128
    node.replace_input_with(0, edit.initializer(model, f"{stored.name}.signed", integers, ir.DataType.INT8))
    node.replace_input_with(2, edit.initializer(model, f"{stored.name}.zero", np.zeros(zero.shape), ir.DataType.INT8))
    return True


def _dequantized(node: ir.Node) -> ir.Node | None:
    """Return the DequantizeLinear of constants that a node reads first."""
    maker = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    stored = maker is not None and maker.op_type == "DequantizeLinear" and edit.constant(maker.inputs[0])
    return maker if stored else None


def _move(model: ir.Model, weights: ir.Node, node: ir.Node) -> str:
    """Let stored integers take the order or shape that a node gives them; return why they cannot."""
    stored, result, middle = weights.inputs[0], node.outputs[0], weights.outputs[0]
    tensor = ir.convenience.get_const_tensor(stored) if stored is not None else None
    scale = weights.inputs[1]
    if tensor is None or stored is None or scale is None or scale.shape is None or not scale.shape.is_static():
        return "a scale is computed"
    if not edit.alone(middle):
        return "others read the weights too"
    if result.shape is None or not result.shape.is_static() or result.is_graph_output():
        return "the shape is not known"
    integers, shape = tensor.numpy(), tuple(int(side) for side in result.shape if isinstance(side, int))
    one = math.prod(int(side) for side in scale.shape if isinstance(side, int)) == 1
    axis = weights.attributes.get_int("axis", 1) % max(integers.ndim, 1)
    if node.op_type == "Transpose":
        order = tuple(node.attributes.get_ints("perm", tuple(reversed(range(integers.ndim)))))
        moved, place = integers.transpose(order), None if one else order.index(axis)
    else:
        moved, place = integers.reshape(shape), None if one else _place(integers.shape, axis, shape)
        if place is None and not one:
            return "channels do not stay whole"
    if len(scale.shape) > 1:
        return "a scale for each block"
    free = edit.free_name(model, f"{stored.name}.moved")
    value = ir.Value(
        name=free,
        const_value=ir.Tensor(np.ascontiguousarray(moved), dtype=tensor.dtype, name=free),
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(shape),
    )
    model.graph.register_initializer(value)
    weights.replace_input_with(0, value)
    if place is not None:
        weights.attributes["axis"] = ir.AttrInt64("axis", place)
    else:
        weights.attributes.pop("axis", None)
    result.replace_all_uses_with(middle)
    middle.shape = result.shape
    model.graph.remove(node, safe=True)
    return ""


def _place(before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> int | None:
    """Return the axis of a new shape that runs over the same channels; None where none does."""
    for place, side in enumerate(after):
        if side == before[axis] and math.prod(after[:place]) == math.prod(before[:axis]):
            return place
    return None


# Behind `fold_constants`, which makes weights of what quantizes them; before the passes that look at weights.
PASS = Pass(apply=apply, promise=0.0, order=15)
