"""Quantize the parts of a concatenation instead of the whole, where a BatchNormalization reads it.

    Q(concat(a, b)) = concat(Q(a), Q(b))

OpenVINO 2026.4.1 moves such a pair itself and ends in a segmentation fault where the grid has a zero point (OV001).
"""

from collections.abc import Sequence

import onnx_ir as ir

from deploy_kit.graph import edit, integer_grids
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Move every pair with one scale that alone reads a Concat and is read by a BatchNormalization."""
    fired = 0
    for norm in tuple(model.graph):
        restore = norm.inputs[0].producer() if norm.op_type == "BatchNormalization" and norm.inputs[0] else None
        quantize = _maker(restore, "DequantizeLinear")
        concat = _maker(quantize, "QuantizeLinear")
        if restore is None or quantize is None or concat is None or concat.op_type != "Concat":
            continue
        grid = quantize.inputs[1:3]
        zero = integer_grids.zero_point(quantize)
        if not (edit.alone(concat.outputs[0]) and edit.alone(quantize.outputs[0])) or zero is None or zero.size != 1:
            continue
        if not all(map(edit.constant, norm.inputs[1:])):  # one whose parameters are quantized crashes in either form
            continue
        if list(restore.inputs[1:3]) != list(grid) or restore.outputs[0].is_graph_output():
            continue
        for index, part in enumerate(concat.inputs):
            assert part is not None
            concat.replace_input_with(index, _paired(model, concat, part, grid))
        restore.outputs[0].replace_all_uses_with(concat.outputs[0])
        model.graph.remove([restore, quantize], safe=True)
        fired += 1
    return Outcome(fired=fired)


def _maker(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """Return what makes the first input of a node of this operator."""
    source = node.inputs[0] if node is not None and node.op_type == op_type else None
    return source.producer() if source is not None else None


def _paired(model: ir.Model, concat: ir.Node, part: ir.Value, grid: Sequence[ir.Value | None]) -> ir.Value:
    name = edit.free_name(model, f"{part.name}.for.{concat.outputs[0].name}")
    quantize = ir.node("QuantizeLinear", [part, *grid], name=f"{name}.q")
    restore = ir.node("DequantizeLinear", [quantize.outputs[0], *grid], name=f"{name}.dq")
    zero = grid[1]
    assert zero is not None
    for node, dtype in ((quantize, zero.dtype), (restore, part.dtype)):
        assert dtype is not None
        value = node.outputs[0]
        value.name, value.shape, value.type = node.name, part.shape, ir.TensorType(dtype)
    model.graph.insert_before(concat, (quantize, restore))
    return restore.outputs[0]


PASS = Pass(apply=apply, promise=0.0)
