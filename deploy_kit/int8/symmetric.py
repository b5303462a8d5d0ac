"""Float graph → Q/DQ graph for TensorRT: int8 around 0, nothing quantized that TensorRT wants in float.

TensorRT takes zero points of 0 alone, no Q/DQ on biases, and fuses a convolution with the DequantizeLinear right before
it. So every activation that a convolution or Gemm reads has a pair, and so has each part of a concatenation, one scale
for a dense block: its maps then move as bytes. BatchNormalization and ReLU stay float; TensorRT fuses them with the
concatenation before them and the quantizer behind them into one kernel.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.int8 import groups as grouping
from deploy_kit.int8.grids import Grid, weights
from deploy_kit.int8.moments import summed
from deploy_kit.int8.plan import Plan
from deploy_kit.passes import _edit

_WEIGHTED = ("Conv", "Gemm")


def write(plan: Plan, *, concats: bool = True) -> ir.Model:
    """Write Q/DQ pairs into the plan's model.

    Args:
        plan: With signed grids; used up.
        concats: Quantize what concatenations read, too.
    """
    model, done = plan.model, set[ir.Value]()
    weighted = [node for node in model.graph if _on_integers(node, plan)]
    for node in weighted:
        _weight(model, node, plan)
    for group in plan.groups.all:
        for value in group.values:
            read = any(node in weighted for node in value.consumers())
            part = concats and group.concats and value in group.sources
            if (read or part) and value not in done:
                _pair(model, value, plan.grids[value])
                done.add(value)
    return model


def _on_integers(node: ir.Node, plan: Plan) -> bool:
    return node.op_type in _WEIGHTED and node.inputs[0] in plan.grids and grouping.quantizable(node)


def _pair(model: ir.Model, value: ir.Value, grid: Grid) -> None:
    """Let all readers of a value read it through QuantizeLinear and DequantizeLinear."""
    scale = _edit.initializer(model, f"{value.name}.scale", np.array(grid.scale), ir.DataType.FLOAT)
    zero = _edit.initializer(model, f"{value.name}.zero", np.array(0), ir.DataType.INT8)
    users, producer = tuple(value.uses()), value.producer()
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}.q")
    restore = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{value.name}.dq")
    for made in (quantize, restore):
        made.outputs[0].name, made.outputs[0].shape = made.name, value.shape
    quantize.outputs[0].type, restore.outputs[0].type = ir.TensorType(ir.DataType.INT8), value.type
    if producer is None:
        model.graph.insert_before(model.graph[0], (quantize, restore))
    else:
        model.graph.insert_after(producer, (quantize, restore))
    for user, index in users:
        user.replace_input_with(index, restore.outputs[0])


def _weight(model: ir.Model, node: ir.Node, plan: Plan) -> None:
    """Replace weights by integers and a DequantizeLinear; the float bias makes up for their mean error."""
    source, name = node.inputs[0], node.outputs[0].name
    assert source is not None
    matrix = _edit.array(node.inputs[1])
    across = node.op_type == "Gemm" and not node.attributes.get_int("transB")
    rows = np.ascontiguousarray(matrix.T if across else matrix)
    whole = weights(rows, np.zeros(len(rows)), plan.grids[source].scale, bits=plan.bits)
    corrected = _edit.bias(node, len(rows)) - summed(whole.values - rows, plan.moments(source).mean)
    integers = whole.integers.T if across else whole.integers
    constants = [
        _edit.initializer(model, f"{name}.w.q", np.ascontiguousarray(integers), ir.DataType.INT8),
        _edit.initializer(model, f"{name}.w.scale", whole.scales, ir.DataType.FLOAT),
        _edit.initializer(model, f"{name}.w.zero", np.zeros(len(rows)), ir.DataType.INT8),
    ]
    restore = ir.node("DequantizeLinear", constants, {"axis": 1 if across else 0}, name=f"{name}.w")
    restore.outputs[0].name = f"{name}.w"
    model.graph.insert_before(node, restore)
    node.resize_inputs(3)
    node.replace_input_with(1, restore.outputs[0])
    node.replace_input_with(2, _edit.initializer(model, f"{name}.b", corrected, ir.DataType.FLOAT))
