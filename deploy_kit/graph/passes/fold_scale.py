"""Fold a factor or an offset per channel into the convolution or BatchNormalization right before it.

    conv(W, x, b) · a + d  =  conv(W · a, x, b · a + d)       per output channel
    (γ · x̂ + β) · a + d    =  (γ · a) · x̂ + (β · a + d)

Caffe normalizes in one layer and scales in the next, so its networks have a Mul and an Add behind every BN: 121 of each
in a DenseNet-121, which also hide its BNs from the passes that fold them.
"""

from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass

_COMMUTES = ("Mul", "Add")
_OPERATIONS = (*_COMMUTES, "Sub", "Div")
_PRODUCERS = ("Conv", "BatchNormalization")


def apply(model: ir.Model) -> Outcome:
    """Fold where the producer feeds nothing else and all parameters are constants."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        found = _operands(node)
        if found is None:
            continue
        value, other = found
        reason = _refusal(value, other)
        if reason:
            refused[reason] += 1
        else:
            _fold(model, node, value, edit.array(other))
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _operands(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Return what a node scales or shifts, made by a convolution or BN, and the constant that it does it by."""
    if node.op_type not in _OPERATIONS or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    pairs = [(first, second), (second, first)] if node.op_type in _COMMUTES else [(first, second)]
    for value, other in pairs:
        producer = value.producer() if value is not None else None
        if value is None or other is None or producer is None or not edit.constant(other):
            continue
        if producer.op_type in _PRODUCERS:
            return value, other
    return None


def _refusal(value: ir.Value, other: ir.Value) -> str:
    """Return why a factor or an offset cannot fold; empty if it can."""
    producer = value.producer()
    assert producer is not None
    if not edit.alone(value):
        return f"the {producer.op_type} before it feeds others too"
    if producer.op_type == "BatchNormalization" and edit.trains(producer):
        return "the BN before it is in training mode"
    if not all(map(edit.constant, filter(None, producer.inputs[1:]))):
        return "a parameter is not a constant"
    (reader, _), *_ = value.uses()
    if reader.op_type == "Div" and not np.all(edit.array(other)):
        return "it divides by 0"
    shape, rank = edit.array(other).shape, _rank(producer)
    if rank is None or len(shape) > rank:
        return "its shape is not that of one number a channel"
    along = (*[1] * (rank - len(shape)), *shape)
    n = len(edit.array(producer.inputs[1]))
    if any(side != 1 for axis, side in enumerate(along) if axis != 1) or along[1] not in (1, n):
        return "its shape is not that of one number a channel"
    return ""


def _rank(producer: ir.Node) -> int | None:
    if producer.op_type == "Conv":
        return edit.array(producer.inputs[1]).ndim
    shape = producer.outputs[0].shape
    return None if shape is None else len(shape)


def _fold(model: ir.Model, node: ir.Node, value: ir.Value, constant: np.ndarray) -> None:
    producer = value.producer()
    assert producer is not None
    assert producer.inputs[1] is not None
    weight = edit.array(producer.inputs[1])
    along = np.broadcast_to(constant.reshape(-1), (len(weight),))
    scale, shift = np.ones(len(weight)), np.zeros(len(weight))
    if node.op_type in ("Mul", "Div"):
        scale = along if node.op_type == "Mul" else 1 / along
    else:
        shift = along if node.op_type == "Add" else -along
    offset = edit.bias(producer, len(weight)) * scale + shift
    column = scale.reshape(-1, *[1] * (weight.ndim - 1))
    dtype, stem = producer.inputs[1].dtype or ir.DataType.FLOAT, value.name
    if len(producer.inputs) < 3:
        producer.resize_inputs(3)
    producer.replace_input_with(1, edit.initializer(model, f"{stem}.weight", weight * column, dtype))
    producer.replace_input_with(2, edit.initializer(model, f"{stem}.bias", offset, dtype))
    result = node.outputs[0]
    name, is_output = result.name, result.is_graph_output()
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    if is_output:
        value.name = name


# Before the passes that fold BNs: with their Mul and Add they are what those look for.
PASS = Pass(apply=apply, promise=1e-5, order=45)
