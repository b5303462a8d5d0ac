"""Fold a BatchNormalization into the convolution right before it.

    W' = W · γ / √(σ² + ε)            per output channel
    b' = (b - μ) · γ / √(σ² + ε) + β

In a DenseNet the BN after the stem and the one between a layer's two convolutions fold. The ones that open a layer
or a transition read a concatenation or a pool and stay; their number and the reason are reported.
"""

from collections import Counter

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Fold where the convolution feeds nothing else and all parameters are constants."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        if node.op_type != "BatchNormalization":
            continue
        reason = _refusal(node)
        if reason:
            refused[reason] += 1
        else:
            _fold(model, node)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _refusal(norm: ir.Node) -> str:
    """Return why a BN cannot fold; empty if it can."""
    source = norm.inputs[0]
    conv = source.producer() if source is not None else None
    if conv is None or conv.op_type != "Conv":
        return f"it follows {conv.op_type if conv else 'the input'}, not a convolution"
    assert source is not None
    if len(source.uses()) != 1 or source.is_graph_output():
        return "the convolution feeds others too"
    if edit.trains(norm):
        return "it is in training mode"
    constants = [*norm.inputs[1:5], conv.inputs[1], *filter(None, conv.inputs[2:])]
    if any(value is None or value.const_value is None for value in constants):
        return "a parameter is not a constant"
    return ""


def _fold(model: ir.Model, norm: ir.Node) -> None:
    assert norm.inputs[0] is not None
    conv = norm.inputs[0].producer()
    assert conv is not None
    scale, shift = edit.affine(norm)
    weight = edit.array(conv.inputs[1])
    bias = edit.bias(conv, len(scale))
    assert conv.inputs[1] is not None
    dtype, stem = conv.inputs[1].dtype or ir.DataType.FLOAT, conv.outputs[0].name
    folded = (
        edit.initializer(model, f"{stem}.weight", weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), dtype),
        edit.initializer(model, f"{stem}.bias", bias * scale + shift, dtype),
    )
    conv.resize_inputs(3)
    for index, value in enumerate(folded, start=1):
        conv.replace_input_with(index, value)
    name = norm.outputs[0].name
    is_output = norm.outputs[0].is_graph_output()
    norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    model.graph.remove(norm, safe=True)
    if is_output:
        conv.outputs[0].name = name


PASS = Pass(apply=apply, promise=1e-5, order=50)
