"""Scale all rows of a weight to one reach, exactly in float: one scale for the tensor is then as good as one per row.

    W[o] / g[o], b[o] / g[o]       g[o] = reach of row o / common reach; the readers absorb g, which passes a ReLU

Why: behind an integer convolution whose weights have one scale, TensorRT-RTX 1.7 adds the bias and clips in the
convolution itself and returns half precision. With a scale per row it returns float32, and a kernel of its own
multiplies, adds and clips. Where only float nodes read the result, the rows' reaches are free, and equal rows cost no
accuracy.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.quantization.int8 import equalizable, equalize
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.int8.scale_groups import ScaleGroup

_FLOOR = 1e-2  # of the median reach: a row that is (nearly) dead keeps small weights


def equalize_rows(plan: Int8Plan, convolutions: frozenset[ir.Node], *, but_concats: bool) -> frozenset[ir.Node]:
    """Scale the rows of convolutions to one reach wherever their readers can absorb the inverse.

    Args:
        plan: A plan that quantizes nothing behind these convolutions, as the ranges of their outputs change.
        convolutions: Convolutions with constant weights.
        but_concats: Leave out those that write into a concatenation.

    Returns:
        The convolutions whose rows were scaled.
    """
    done = set[ir.Node]()
    for group in dict.fromkeys(group for conv in plan.model.graph if (group := _written(conv, convolutions, plan))):
        if (but_concats and group.concats) or equalizable.refusal(group, plan.groups):
            continue
        maps = {}
        for value in group.sources:
            conv = equalizable.maker(value)
            assert conv is not None
            # The group is rewritten as a whole: parts that other convolutions make keep their scale.
            r = _gains(edit.array(conv.inputs[1])) if conv in convolutions else np.ones(plan.seen[value].low.shape)
            maps[value] = Affine(r=r, m=np.zeros_like(r))
            done |= {conv} & convolutions
        equalize.rewrite(plan.model, group, maps)
    return frozenset(done)


def _written(conv: ir.Node, convolutions: frozenset[ir.Node], plan: Int8Plan) -> ScaleGroup | None:
    """Return the group that one of the convolutions writes into."""
    if conv not in convolutions:
        return None
    relu = grouping.fused_relu(conv)
    return plan.groups.of.get((relu or conv).outputs[0])


def _gains(weight: np.ndarray) -> np.ndarray:
    """Compute g (outputs,) for the median of the rows' reaches, which keeps outputs about as large as they were."""
    reach = np.abs(weight.reshape(len(weight), -1)).max(1)
    middle = float(np.median(reach)) or 1.0
    return np.asarray(np.maximum(reach / middle, _FLOOR))
