"""BN and ReLU in front of an integer convolution: the quantizer clips where the ReLU would.

    y = relu(a·x + b) ∈ [0, h]      y = r·y' + m, r = m = 128·h/255     y' = a/r·x + b/r − 1 ∈ [−1, 127/128]
    Q(y') = clip(round(128·y'), −128, 127)                              relu(·) ≥ 0 ⇔ y' ≥ −1: the clip is the ReLU
    W·y + b₁ = (W·r)·y' + b₁ + Σ W·m

int8 around 0 leaves half of its integers unused behind a ReLU. Shifted by m all 256 are used, the ReLU is gone, and the
scale 2⁻⁷ is exact in half precision; each channel has its own r for free, as the BN absorbs it. All of it is exact but
for the rounding to integers. A convolution that pads reads zeros of y, which y' cannot shift: there m = 0, the ReLU
stays, and r = 128·h/127.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.quantization.int8 import equalize
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.channel_moments import exact
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.quantization.int8.plan import Int8Plan

UNIT = Grid(scale=2.0**-7, zero=0, signed=True)
"""The grid of y'."""

_FLOOR = 0.05  # of the median reach: a channel that is nearly dead would need a large slope in a half-precision BN


@dataclass(frozen=True, kw_only=True)
class _Joint:
    """A BN, its ReLU, and the only convolution behind them."""

    norm: ir.Node
    relu: ir.Node
    conv: ir.Node


def saturate_relus(plan: Int8Plan) -> frozenset[ir.Node]:
    """Rewrite every BN + ReLU that one convolution alone reads.

    Returns:
        These convolutions; their inputs are on the grid `UNIT` afterwards.
    """
    joints = [joint for node in plan.model.graph if (joint := _joint(node, plan)) is not None]
    for joint in joints:
        _rewrite(joint, plan)
    return frozenset(joint.conv for joint in joints)


def _joint(conv: ir.Node, plan: Int8Plan) -> _Joint | None:
    chosen = conv.op_type == "Conv" and conv not in plan.kept and grouping.quantizable(conv)
    source = conv.inputs[0] if chosen else None
    relu = source.producer() if source is not None else None
    if source not in plan.seen or relu is None or relu.op_type != "Relu" or conv.attributes.get_int("group", 1) != 1:
        return None
    norm = grouping.fused_into(relu)
    if norm is None or norm.op_type != "BatchNormalization" or not grouping.quantizable(norm):
        return None
    return _Joint(norm=norm, relu=relu, conv=conv) if grouping.only_reader(relu.outputs[0]) is conv else None


def _rewrite(joint: _Joint, plan: Int8Plan) -> None:
    model, value, shifts = plan.model, joint.relu.outputs[0], not edit.pads(joint.conv)
    seen, high = plan.seen[value], plan.spans[value][1]
    high = np.maximum(high, equalize.least(high, _FLOOR))
    r = high * (128 / 255 if shifts else 128 / 127)
    by = Affine(r=r, m=r if shifts else np.zeros_like(r))
    gamma, beta = (edit.array(parameter) for parameter in joint.norm.inputs[1:3])
    equalize.replace(model, joint.norm, 1, gamma / by.r)
    equalize.replace(model, joint.norm, 2, by.inverse(beta))
    equalize.absorb_in_conv(model, joint.conv, by)
    if shifts:
        value = joint.norm.outputs[0]
        joint.conv.replace_input_with(0, value)
        model.graph.remove(joint.relu, safe=True)
    plan.grids[value] = UNIT
    plan.known[value] = exact(by.inverse(seen.mean), seen.std / by.r)
