"""Float graph → Q/DQ graph for TensorRT: int8 around 0, nothing quantized that TensorRT wants in float.

TensorRT takes zero points of 0 alone, no Q/DQ on biases, and fuses a convolution with the DequantizeLinear right before
it. BatchNormalization stays float: TensorRT fuses it with the concatenation before and the quantizer behind into one
kernel. A quantizer right behind a convolution is a kernel of its own on TensorRT-RTX (docs/placements.md).
"""

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import edit, receptive_window
from deploy_kit.quantization.int8 import row_equalization, saturate, weight_rounding
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.adaptive_rounding import Rounded
from deploy_kit.quantization.int8.channel_moments import summed
from deploy_kit.quantization.int8.grids import round_scales_up, row_scales
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.int8.weight_rounding import Rows

Convolutions: TypeAlias = Literal["behind_norms", "blocks", "all"]

_WEIGHTED = ("Conv", "Gemm")


def write_symmetric(
    plan: Int8Plan,
    *,
    convolutions: Convolutions = "behind_norms",
    concats: bool = False,
    scales: type[np.floating[Any]] = np.float32,
) -> ir.Model:
    """Write Q/DQ pairs into the plan's model.

    Args:
        plan: A plan with signed grids; it is changed. Its `kept` nodes stay in float.
        convolutions: Convolutions that compute on integers: ``behind_norms``, those that read a BN + ReLU, so that
            each quantizer is part of a kernel that is there anyway; ``blocks``, also those that read a convolution's
            ReLU; or ``all``, and Gemm.
        concats: Quantize what concatenations read, too, with one scale for a block.
        scales: Type that all scales will have: they are rounded to it before anything is divided by them.

    Raises:
        QuantizeError: There is no such convolution, and no layer group stays in float that would explain it.
    """
    # BN + ReLU first: they decide which convolutions are behind norms, and change the weights that rows are scaled in.
    model, behind_norms = plan.model, saturate.saturate_relus(plan)
    weighted = [node for node in model.graph if node in behind_norms or _chosen(node, plan, convolutions)]
    if not weighted and not plan.kept:
        raise QuantizeError(
            "no convolution reads a BatchNormalization and ReLU that it alone reads",
            hint="a recipe can: scheme: int8_tensorrt, options: {convolutions: all} quantizes the others",
        )
    free = convolutions == "behind_norms"  # then only float nodes read what these convolutions write
    leveled = row_equalization.equalize_rows(plan, behind_norms, but_concats=concats) if free else frozenset[ir.Node]()
    rows = {node: _rows(node, scales, one=node in leveled) for node in weighted}
    chosen = weight_rounding.rounded_weights(plan, rows) if plan.choices.rounding == "descent" else {}
    for node, weights in rows.items():
        _weight(node, plan, weights, chosen.get(node))
    # All parts of a block share the block's grid, so that its concatenations move int8.
    parts = [v for group in plan.groups.all if concats and group.concats for v in group.sources if v in plan.grids]
    for value in dict.fromkeys([*(node.inputs[0] for node in weighted), *parts]):
        assert value is not None
        _pair(model, value, round_scales_up(plan.grids[value].scale, scales))
    return model


def _chosen(node: ir.Node, plan: Int8Plan, convolutions: Convolutions) -> bool:
    """Return whether a node that is not behind a norm computes on integers."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type not in _WEIGHTED or source not in plan.grids or not grouping.quantizable(node):
        return False
    if node in plan.kept:
        return False
    relu = source.producer() if source is not None else None
    if relu is None or relu.op_type != "Relu":
        return convolutions == "all"
    before = grouping.fused_into(relu)
    return convolutions == "all" or (convolutions == "blocks" and before is not None and before.op_type == "Conv")


def _pair(model: ir.Model, value: ir.Value, step: np.ndarray) -> None:
    """Put QuantizeLinear and DequantizeLinear between a value and all its readers."""
    scale = edit.initializer(model, f"{value.name}.scale", step, ir.DataType.FLOAT)
    zero = edit.initializer(model, f"{value.name}.zero", np.array(0), ir.DataType.INT8)
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


def _rows(node: ir.Node, scales: type[np.floating[Any]], *, one: bool) -> Rows:
    """Return weights (outputs, inputs / groups, …) and their scales: with `one` a single one, else one for each row."""
    matrix = edit.array(node.inputs[1])
    weights = np.ascontiguousarray(matrix.T if _across(node) else matrix)
    return Rows(weights=weights, scales=round_scales_up(row_scales(weights, one=one), scales))


def _across(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and not node.attributes.get_int("transB")


def _weight(node: ir.Node, plan: Int8Plan, rows: Rows, chosen: Rounded | None) -> None:
    """Replace weights by integers and a DequantizeLinear; the float bias makes up for their mean error."""
    model, source, name, weights = plan.model, node.inputs[0], node.outputs[0].name, rows.weights
    assert source is not None
    steps = rows.per_row
    integers = np.clip(np.rint(weights / steps), -127, 127) if chosen is None else chosen.integers
    bias = edit.bias(node, len(weights))
    # The error of the weights alone: no bound is computed on integers here, so inputs are right on average.
    if plan.choices.bias_correction:
        bias = bias - summed(integers * steps - weights, plan.moments(source).mean, receptive_window.inside(node))
    across, one = _across(node), rows.scales.ndim == 0
    constants = [
        edit.initializer(
            model, f"{name}.w.q", np.ascontiguousarray(integers.T if across else integers), ir.DataType.INT8
        ),
        edit.initializer(model, f"{name}.w.scale", rows.scales, ir.DataType.FLOAT),
        edit.initializer(model, f"{name}.w.zero", np.zeros(rows.scales.shape), ir.DataType.INT8),
    ]
    axis = {} if one else {"axis": 1 if across else 0}
    restore = ir.node("DequantizeLinear", constants, axis, name=f"{name}.w")
    restore.outputs[0].name, restore.outputs[0].shape = f"{name}.w", ir.Shape(edit.array(node.inputs[1]).shape)
    restore.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(node, restore)
    node.resize_inputs(3)
    node.replace_input_with(1, restore.outputs[0])
    node.replace_input_with(2, edit.initializer(model, f"{name}.b", bias, ir.DataType.FLOAT))
