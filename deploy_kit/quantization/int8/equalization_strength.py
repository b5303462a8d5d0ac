"""How far channels are brought to the range of others: what finer activations gain, coarser weights lose.

    r_α = r^α                                   α = 1: all channels fill the range; α = 0: they stay as they are
    activations:  Σ_c W[o,c]²·(r_α[c]·step)²/12                              a reader takes the factor into its weights
    weights:      (max_c |W[o,c]·r_α[c]| / levels)²/12 · Σ_c σ_c²/r_α[c]²     one step for each of its outputs

A channel that the grid cuts off has no more than the grid's variance, a quarter of its square. Both are variances of
the noise in output o of a reader; held against the output's own, Σ_c W[o,c]²·σ_c², and summed over readers, they choose
α. Behind a BN that normalizes its channels small channels have large weights, and α = 1 costs nothing; where a
convolution reads parts of unequal range with weights of one size, those of the small ones would vanish.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, sums_of_two
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.equalizable import LINEAR, depthwise
from deploy_kit.quantization.int8.grids import LIMIT
from deploy_kit.quantization.int8.scale_groups import ScaleGroup

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STEPS = 255


def noise(
    group: ScaleGroup,
    maps: Mapping[ir.Value, Affine],
    stds: Mapping[ir.Value, np.ndarray],
    span: float,
    narrow_sums: bool,
) -> float:
    """Estimate the noise in what reads a group, as a share of its variance, summed over readers.

    Args:
        group: A group whose values are all in `maps` and `stds`.
        maps: How each value is scaled.
        stds: (C,) standard deviation of each value before it is scaled.
        span: Length of the range that the group's grid covers, once scaled.
        narrow_sums: Two products must fit into 16 bits (`sums_of_two`).
    """
    step, total = span / _STEPS, 0.0
    for value in group.values:
        r, variance = maps[value].r, stds[value] ** 2
        for node in value.consumers():
            if not grouping.quantizable(node):
                continue
            if node.op_type == "BatchNormalization" or (node.op_type == "Conv" and depthwise(node)):
                alive = variance > 0
                total += float(((r * step)[alive] ** 2 / 12 / variance[alive]).mean()) if alive.any() else 0.0
            elif node.op_type in LINEAR and node.attributes.get_int("group", 1) == 1:
                weight = edit.array(node.inputs[1]).astype(np.float64)
                across = weight if node.op_type == "Conv" else weight.swapaxes(0, 1)
                taps = across.reshape(*across.shape[:2], -1)
                square = (taps**2).sum(2)
                paired = sums_of_two.pairs(*taps.shape[1:]) if narrow_sums else sums_of_two.NO_PAIRS
                coarse = sums_of_two.largest(taps * r[:, None], paired) / LIMIT
                inputs = taps.shape[2] * np.minimum(variance / r**2, span**2 / 4).sum()
                found, signal = square @ (r * step) ** 2 / 12 + coarse**2 / 12 * inputs, square @ variance
                total += float((found / np.maximum(signal, signal.max() * 1e-6 + 1e-30)).mean())
    return total
