"""Give all rows of a weight one reach, exactly in float, so that one scale for the tensor is as good as one per row.

    W[o] / g[o], b[o] / g[o]       g[o] = reach of row o / common reach; the readers take g, a ReLU between lets it pass

Why: behind an integer convolution whose weights have one scale, TensorRT-RTX 1.7 adds the bias and clips in the
convolution itself and gives half precision. With a scale per row it gives float32, and a kernel of its own multiplies,
adds and clips. Where only float nodes read, the rows' reaches are free, and equal rows cost no accuracy at all.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.quantization.int8 import equalize
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.int8.scale_groups import ScaleGroup

_FLOOR = 1e-2  # of the median reach: rows that are (nearly) dead keep small weights


def equalize_rows(plan: Int8Plan, convolutions: frozenset[ir.Node], *, but_concats: bool) -> frozenset[ir.Node]:
    """Level the rows of these convolutions wherever their readers can take the inverse; gives those it did.

    Args:
        plan: Nothing that it quantizes may be behind them: their outputs take other ranges.
        convolutions: With constant weights.
        but_concats: Leave those that write into a concatenation.
    """
    done = set[ir.Node]()
    for group in dict.fromkeys(group for conv in plan.model.graph if (group := _written(conv, convolutions, plan))):
        if (but_concats and group.concats) or equalize.refusal(group, plan.groups):
            continue
        maps = {}
        for value in group.sources:
            conv = equalize.maker(value)
            assert conv is not None
            weight = edit.array(conv.inputs[1])
            r = _gains(weight) if conv in convolutions else np.ones(len(weight))
            maps[value] = Affine(r=r, m=np.zeros_like(r))
            done |= {conv} & convolutions
        equalize.rewrite(plan.model, group, maps)
    return frozenset(done)


def _written(conv: ir.Node, convolutions: frozenset[ir.Node], plan: Int8Plan) -> ScaleGroup | None:
    """Give the group that one of the convolutions writes into."""
    if conv not in convolutions:
        return None
    relu = grouping.fused_relu(conv)
    return plan.groups.of.get((relu or conv).outputs[0])


def _gains(weight: np.ndarray) -> np.ndarray:
    """Give g (outputs,): a common reach in the middle of the rows' own keeps outputs about as large as they were."""
    reach = np.abs(weight.reshape(len(weight), -1)).max(1)
    middle = float(np.median(reach)) or 1.0
    return np.asarray(np.maximum(reach / middle, _FLOOR))
