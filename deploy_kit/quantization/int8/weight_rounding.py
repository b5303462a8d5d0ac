"""A plan → integers of its weights that keep outputs near, from what each convolution reads on the calibration images.

Convolutions whose inputs are not sampled (grouped ones, open sizes) are left to rounding to the nearest.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.quantization.int8 import adaptive_rounding, input_patches
from deploy_kit.quantization.int8.plan import Int8Plan


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Weights of one node, ready to be rounded.

    Attributes:
        weights: (outputs, inputs / groups, …) float64.
        scales: (outputs,) float64, or a scalar for all.
    """

    weights: np.ndarray
    scales: np.ndarray

    @property
    def per_row(self) -> np.ndarray:
        """The scales in a shape that divides the weights."""
        ones = [1] * (self.weights.ndim - 1)
        return np.broadcast_to(self.scales, len(self.weights)).reshape(-1, *ones)


def _digest(rows: Rows) -> bytes:
    return hashlib.sha256(rows.weights.tobytes() + rows.scales.tobytes()).digest()


def rounded_weights(plan: Int8Plan, asked: dict[ir.Node, Rows], *, limit: int = 127) -> dict[ir.Node, np.ndarray]:
    """Give the integers of weights as float64, in the shape of the weights.

    What was found once is not looked for again: many graphs are written of one plan, with other nodes in float.

    Args:
        plan: Its model is still in float, its grids are those that the nodes read.
        asked: In graph order.
        limit: Largest integer.
    """
    keys = {node: (str(node.outputs[0].name), _digest(rows)) for node, rows in asked.items()}
    found = {node: plan.rounded[key] for node, key in keys.items() if key in plan.rounded}
    reads = []
    for node, rows in asked.items():
        source = node.inputs[0]
        if node in found:
            continue
        assert source is not None
        entry = input_patches.sampled_inputs(node, plan.grids[source], rows.weights[0].size)
        if entry is not None:
            reads.append(entry)
    if not reads:
        return found
    model = ir.serde.serialize_model(plan.model)
    for entry, read in input_patches.sample_patches(model, reads, plan.batches, plan.n_images):
        rows = asked[entry.node]
        second = adaptive_rounding.second_moments(read, centered=plan.choices.bias_correction)
        flat = rows.weights.reshape(len(rows.weights), -1)
        whole = adaptive_rounding.integers(flat, rows.per_row.reshape(-1), second, limit=limit)
        found[entry.node] = plan.rounded[keys[entry.node]] = whole.reshape(rows.weights.shape)
    return found
