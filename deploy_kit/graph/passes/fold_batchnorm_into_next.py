"""Fold a BatchNormalization into the convolution or Gemm right behind it, where no ReLU stands between.

    W·(a·x + s) + b = (W·a)·x + (b + W·s)        a = γ/√(σ² + ε) per input channel, s = β − a·μ

Some DenseNets have no ReLU in their transitions; there this BN costs nothing. Not possible behind padding: the
border would see 0 where the BN gave s.
"""

from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Fold where one linear node alone reads the BN and all parameters are constants."""
    fired, refused = 0, Counter[str]()
    for norm in reversed(tuple(model.graph)):  # of several in a row, the last one first
        if norm.op_type != "BatchNormalization":
            continue
        reason = _refusal(norm)
        if reason:
            refused[reason] += 1
        else:
            _fold(model, norm)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _refusal(norm: ir.Node) -> str:
    """Return why a BN cannot fold; empty if it can."""
    if not edit.alone(norm.outputs[0]):
        return "it does not feed one node alone"
    (reader, index), *_ = norm.outputs[0].uses()
    if reader.op_type not in ("Conv", "Gemm") or index != 0:
        return f"{reader.op_type} follows it, not a convolution"
    if edit.trains(norm):
        return "it is in training mode"
    if not all(map(edit.constant, [*norm.inputs[1:5], reader.inputs[1], *filter(None, reader.inputs[2:])])):
        return "a parameter is not a constant"
    return _unfit(norm, reader)


def _unfit(norm: ir.Node, reader: ir.Node) -> str:
    moves = reader.attributes
    if reader.op_type == "Gemm":
        plain = moves.get_float("alpha", 1.0) == 1.0 and not moves.get_int("transA", 0)
        return "" if plain and moves.get_float("beta", 1.0) == 1.0 else "the Gemm scales or transposes its input"
    if moves.get_int("group", 1) != 1:
        return "the convolution has groups"
    return "the convolution pads" if edit.pads(reader) and edit.affine(norm)[1].any() else ""


def _fold(model: ir.Model, norm: ir.Node) -> None:
    scale, shift = edit.affine(norm)
    (reader, _), *_ = norm.outputs[0].uses()
    source, weight = norm.inputs[0], edit.array(reader.inputs[1])
    assert source is not None
    assert reader.inputs[1] is not None
    if reader.op_type == "Gemm" and not reader.attributes.get_int("transB", 0):
        scaled, moved = weight * scale[:, None], shift @ weight
    else:  # (out, in, …): one matrix for each output channel
        rest = [1] * (weight.ndim - 2)
        scaled = weight * scale.reshape(1, -1, *rest)
        moved = (weight * shift.reshape(1, -1, *rest)).reshape(len(weight), -1).sum(1)
    bias = edit.array(reader.inputs[2]) if len(reader.inputs) > 2 and reader.inputs[2] is not None else np.zeros(1)
    dtype, stem = reader.inputs[1].dtype or ir.DataType.FLOAT, reader.outputs[0].name
    reader.resize_inputs(3)
    reader.replace_input_with(0, source)
    reader.replace_input_with(1, edit.initializer(model, f"{stem}.weight", scaled, dtype))
    reader.replace_input_with(2, edit.initializer(model, f"{stem}.bias", bias + moved, dtype))
    model.graph.remove(norm, safe=True)


# Before `pool_before_conv`, which would put the pool of a transition between this BN and its convolution.
PASS = Pass(apply=apply, promise=1e-5, order=60)
