"""Other integers for the same grids: a quantizer, what moves its integers, and what dequantizes them, shifted at once.

    s · (q − z) = s · ((q + d) − (z + d))

With d = ±128 the 256 integers of int8 become those of uint8, or the reverse: every value stays bit for bit.
"""

from collections import Counter, deque
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file

_OFFSET = 128
# What passes integers on or takes the larger of two: it commutes with adding a number.
_MOVING = frozenset(
    {
        "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Concat",
        "Expand", "MaxPool", "Max", "Min", "Clip", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip


def faulty_steps(scale: np.ndarray, *, divides: bool) -> np.ndarray:
    """Return the steps of grids that are no positive numbers: what is quantized with them is no number either.

    Args:
        scale: Steps, of any shape.
        divides: Whether something is divided by them. A step that is only multiplied may be 0: weights of a channel
            that are all 0 leave one.

    Returns:
        (M,) float64, those that are NaN, infinite, negative, or 0 where they divide.
    """
    steps = scale.astype(np.float64).reshape(-1)
    return steps[~((steps > 0 if divides else steps >= 0) & np.isfinite(steps))]


def zero_point(node: ir.Node) -> np.ndarray | None:
    """Return the zero point of a Q or DQ as it is stored; None where it has none, or one that is computed."""
    return edit.numbers(node.inputs[2] if len(node.inputs) > 2 else None)


def shift(
    model: ir.Model, to: ir.DataType, wanted: Callable[[np.ndarray], bool] = lambda zero: True
) -> tuple[int, Counter[str]]:
    """Store activations as uint8 that are int8, or the reverse.

    Args:
        model: The graph; it is changed. What it stores as constants alone, weights, stays.
        to: The type afterwards: ``UINT8`` or ``INT8``.
        wanted: Whether a grid with this zero point, of any shape, is to be shifted.

    Returns:
        Number of quantizers that were changed, and (reason, number) of those that could not be.
    """
    source = ir.DataType.INT8 if to == ir.DataType.UINT8 else ir.DataType.UINT8
    fired, refused, seen = 0, Counter[str](), set[ir.Value]()
    for node in tuple(model.graph):
        result = node.outputs[0]
        if node.op_type != "QuantizeLinear" or result in seen or _dtype(node) != source:
            continue
        nodes, values, reason = _connected(result, source)
        seen |= values
        pairs = [one for one in nodes if one.op_type in onnx_file.PAIR]
        zeros = [zero_point(one) for one in pairs]
        if not reason and any(zero is None for zero in zeros):
            reason = "a zero point is not stored"
        if reason:
            refused[reason] += 1
        elif all(zero is not None and wanted(zero) for zero in zeros):
            _shift(model, nodes, values, to)
            fired += sum(one.op_type == "QuantizeLinear" for one in pairs)
    return fired, refused


def _dtype(node: ir.Node) -> ir.DataType | None:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    return zero.dtype if zero is not None else node.outputs[0].dtype


def _connected(start: ir.Value, dtype: ir.DataType) -> tuple[list[ir.Node], set[ir.Value], str]:
    """Find the nodes and integers that must be shifted together, or why they cannot be."""
    nodes, values, pending = dict[ir.Node, None](), {start}, deque([start])
    while pending:
        value = pending.popleft()
        if value.is_graph_input() or value.is_graph_output():
            return list(nodes), values, "the graph reads or gives the integers themselves"
        for node in (value.producer(), *value.consumers()):
            if node is None or node in nodes:
                continue
            nodes[node] = None
            if node.op_type in onnx_file.PAIR:
                continue
            if node.op_type not in _MOVING:
                return list(nodes), values, f"{node.op_type} computes with the integers"
            around = (one for one in (*node.inputs, *node.outputs) if one is not None and one.dtype == dtype)
            fresh = [one for one in dict.fromkeys(around) if one not in values]
            values.update(fresh)
            pending.extend(fresh)
    return list(nodes), values, ""


def _shift(model: ir.Model, nodes: list[ir.Node], values: set[ir.Value], to: ir.DataType) -> None:
    made: dict[ir.Value, ir.Value] = {}

    def shifted(value: ir.Value) -> ir.Value:
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        if value not in made:
            numbers = tensor.numpy().astype(np.int64) + (_OFFSET if to == ir.DataType.UINT8 else -_OFFSET)
            made[value] = edit.initializer(model, f"{value.name}.{to.name.lower()}", numbers, to)
        return made[value]

    for node in nodes:
        for index, value in enumerate(node.inputs):
            concerned = index == 2 if node.op_type in onnx_file.PAIR else value in values
            if value is not None and concerned and ir.convenience.get_const_tensor(value) is not None:
                node.replace_input_with(index, shifted(value))
        node.attributes.pop("output_dtype", None)
        for output in node.outputs:
            if output in values:
                output.type = ir.TensorType(to)
