"""Turn BatchNormalization + ReLU into one maximum, its slope and offset into the 1×1 convolution behind it.

    relu(a·x + b) = a·(max(x, t) − t)    for a > 0,  t = −b/a
                  = a·(min(x, t) − t)    for a < 0
                  = relu(b)              for a = 0
    W·relu(a·x + b) + c = (W·a)·max(x, t) + (c − Σ W·a·t)

An average pool may stand between: its weights sum to one, so the constant passes through. This halves the passes over
a DenseNet's concatenations where the runtime does not fuse a BN that it cannot fold (OpenVINO; ONNX Runtime does
better with the BN as it is).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass

_LARGEST = 1e30  # no activation reaches a threshold beyond it: the channel is constant
NEVER = 3e38
"""Bound of a channel that is not bounded: finite, as some runtimes do not take infinities."""

_LARGEST_HALF = 65504.0  # stands for both in a float16 graph, which ends there


@dataclass(frozen=True, kw_only=True)
class _Match:
    """BN → ReLU → [average pool] → convolutions."""

    norm: ir.Node
    relu: ir.Node
    convs: tuple[ir.Node, ...]


def apply(model: ir.Model) -> Outcome:
    """Rewrite each BN + ReLU whose readers are all unpadded convolutions with constant weights."""
    fired, refused = 0, Counter[str]()
    for norm in tuple(model.graph):
        if norm.op_type != "BatchNormalization":
            continue
        match, reason = _match(norm)
        if match is None:
            refused[reason] += 1
        else:
            _rewrite(model, match)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _match(norm: ir.Node) -> tuple[_Match | None, str]:
    """Find the pattern around a BN, or the reason why it does not hold."""
    if not all(map(edit.constant, norm.inputs[1:5])):
        return None, "a parameter is not a constant"
    if edit.trains(norm):
        return None, "it is in training mode"
    if not edit.alone(norm.outputs[0]):
        return None, "it does not feed one node alone"
    (relu, _), *_ = norm.outputs[0].uses()
    if relu.op_type != "Relu":
        return None, f"{relu.op_type} follows it, not a ReLU"
    last, value = relu, relu.outputs[0]
    if edit.alone(value):
        (pool, _), *_ = value.uses()
        if pool.op_type == "AveragePool" and not edit.averages_padding(pool):
            last, value = pool, pool.outputs[0]
    if value.is_graph_output():
        return None, f"its {last.op_type} makes an output of the graph"
    convs = []
    for reader, _ in value.uses():
        if reader.op_type != "Conv":
            return None, f"{reader.op_type} reads its ReLU, not a convolution"
        if not all(map(edit.constant, filter(None, reader.inputs[1:]))) or reader.attributes.get_int("group", 1) != 1:
            return None, "the convolution behind it has groups or computed weights"
        if edit.pads(reader):
            return None, "the convolution behind it pads"
        convs.append(reader)
    return (_Match(norm=norm, relu=relu, convs=tuple(convs)), "") if convs else (None, "nothing reads it")


def _rewrite(model: ir.Model, match: _Match) -> None:
    norm, source = match.norm, match.norm.inputs[0]
    assert source is not None
    slope, offset = edit.affine(norm)
    # A slope of 0 gives an infinite or undefined threshold: the comparison below is false for both.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        threshold = -offset / slope
    weight = match.convs[0].inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    dtype, rank = weight.const_value.dtype, len(weight.const_value.shape)
    half = dtype == ir.DataType.FLOAT16
    flat = ~(np.abs(threshold) < (_LARGEST_HALF if half else _LARGEST))
    slope, threshold = np.where(flat, 0.0, slope), np.where(flat, 0.0, threshold)
    for conv in match.convs:
        _absorb(model, conv, slope, np.where(flat, np.maximum(offset, 0.0), -slope * threshold))
    clipped, never = source, _LARGEST_HALF if half else NEVER
    # One BN may have slopes of both signs: then a minimum follows the maximum, each bounding its own channels.
    for operator, bounded, unbounded in (("Max", slope > 0, -never), ("Min", slope < 0, never)):
        if bounded.any():
            limits = np.where(bounded, threshold, unbounded).reshape(1, -1, *[1] * (rank - 2))
            bound = edit.initializer(model, f"{norm.outputs[0].name}.{operator.lower()}", limits, dtype)
            node = ir.node(operator, [clipped, bound], name=f"{norm.name or norm.outputs[0].name}.{operator.lower()}")
            clipped = node.outputs[0]
            clipped.name, clipped.shape = edit.free_name(model, f"{bound.name}.out"), source.shape
            clipped.type = ir.TensorType(dtype)
            model.graph.insert_before(match.relu, node)
    match.relu.outputs[0].replace_all_uses_with(clipped)
    model.graph.remove((norm, match.relu), safe=True)


def _absorb(model: ir.Model, conv: ir.Node, slope: np.ndarray, constant: np.ndarray) -> None:
    """Let a convolution multiply its input channels by `slope` and add `constant` to them."""
    weight, rest = edit.array(conv.inputs[1]), [1] * (len(edit.array(conv.inputs[1]).shape) - 2)
    moved = (weight * constant.reshape(1, -1, *rest)).reshape(len(weight), -1).sum(1)
    bias = edit.bias(conv, len(weight))
    assert conv.inputs[1] is not None
    dtype, stem = conv.inputs[1].dtype or ir.DataType.FLOAT, conv.outputs[0].name
    conv.resize_inputs(3)
    scaled = edit.initializer(model, f"{stem}.weight", weight * slope.reshape(1, -1, *rest), dtype)
    conv.replace_input_with(1, scaled)
    conv.replace_input_with(2, edit.initializer(model, f"{stem}.bias", bias + moved, dtype))


PASS = Pass(apply=apply, promise=1e-5)
