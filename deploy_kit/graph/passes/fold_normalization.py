"""Fold the normalization of pixels into the first convolution of a graph that takes them (`graph.pixel_input`).

    x = a·p + b = a·(p - t),  t = -b/a          p: pixels 0..255, a and b per channel
    conv(W, a·(p - t)) = conv(W·a, p - t)       where it pads: a padded zero of x is the pixel t, and of p - t it is 0
    conv(W, a·p + b) = conv(W·a, p) + Σ W·b     where it does not

Channels that were put into another order (BGR) are put back in the weights. One subtraction is left of the
normalization, or nothing.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, pixel_input
from deploy_kit.graph.passes import Outcome, Pass
from deploy_kit.graph.pixel_input import Normalization


def apply(model: ir.Model) -> Outcome:
    """Fold where one convolution alone reads the normalized pixels and its parameters are constants."""
    found = pixel_input.normalization_of(model)
    if found is None or not found.nodes:
        return Outcome(fired=0)
    reason = _refusal(found)
    if reason:
        return Outcome(fired=0, refused=((reason, 1),))
    ((conv, _),) = found.result.uses()
    pads = edit.pads(conv)
    if pads and len(found.nodes) == 1 and found.nodes[0].op_type == "Sub":
        return Outcome(fired=0)  # folded before
    _fold(model, found, conv, pads=pads)
    return Outcome(fired=1)


def _refusal(found: Normalization) -> str:
    """Return why the normalization cannot fold; empty if it can."""
    if not edit.alone(found.result):
        return "it does not feed one convolution alone"
    ((reader, index),) = found.result.uses()
    if reader.op_type != "Conv" or index != 0:
        return f"{reader.op_type} follows it, not a convolution"
    if reader.attributes.get_int("group", 1) != 1:
        return "the convolution has groups"
    if not all(map(edit.constant, filter(None, reader.inputs[1:]))):
        return "a parameter is not a constant"
    return "" if np.all(found.scale) else "a channel is multiplied by 0"


def _fold(model: ir.Model, found: Normalization, conv: ir.Node, *, pads: bool) -> None:
    weight = edit.array(conv.inputs[1])
    column = (1, -1, *[1] * (weight.ndim - 2))
    bias = edit.bias(conv, len(weight))
    if not pads:
        bias = bias + (weight * found.shift.reshape(column)).reshape(len(weight), -1).sum(1)
    scaled, pixel = weight * found.scale.reshape(column), -found.shift / found.scale
    source = found.cast.inputs[0]
    assert source is not None
    order = _order(source)
    if order is not None:
        put_back = np.argsort(order)
        scaled, pixel = scaled[:, put_back], pixel[put_back]
        found.cast.replace_input_with(0, _unordered(source))
    assert conv.inputs[1] is not None
    dtype, stem = conv.inputs[1].dtype or ir.DataType.FLOAT, conv.outputs[0].name
    result = found.cast.outputs[0]
    if pads:
        zero = edit.initializer(model, f"{stem}.pixel", pixel.reshape(column[1:]), result.dtype or ir.DataType.FLOAT)
        center = ir.node("Sub", [result, zero], name=f"{result.name}.centered")
        center.outputs[0].name, center.outputs[0].shape = center.name, result.shape
        center.outputs[0].type = result.type
        model.graph.insert_before(conv, center)
        result = center.outputs[0]
    conv.resize_inputs(3)
    conv.replace_input_with(0, result)
    conv.replace_input_with(1, edit.initializer(model, f"{stem}.weight", scaled, dtype))
    conv.replace_input_with(2, edit.initializer(model, f"{stem}.bias", bias, dtype))
    for node in reversed(found.nodes):
        model.graph.remove(node, safe=True)
    gather = source.producer()
    if gather is not None and not source.uses():
        model.graph.remove(gather, safe=True)


def _order(value: ir.Value) -> np.ndarray | None:
    """Return the order that a Gather puts channels into; None where the value is not made by one."""
    node = value.producer()
    if node is None or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return None
    if not edit.constant(node.inputs[1]):
        return None
    order = edit.array(node.inputs[1]).astype(np.int64)
    return order if order.ndim == 1 and sorted(order) == list(range(len(order))) else None


def _unordered(value: ir.Value) -> ir.Value:
    node = value.producer()
    assert node is not None
    assert node.inputs[0] is not None
    return node.inputs[0]


# Behind the passes that fold or drop what stands between the pixels and the convolution.
PASS = Pass(apply=apply, promise=1e-5, order=65)
