"""A plan → integers of its weights that keep outputs near, by what each convolution reads on the calibration images.

Convolutions whose inputs are not sampled (grouped ones, open sizes) are rounded to the nearest.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from deploy_kit.base.progress import ProgressEvent
from deploy_kit.graph.sums_of_two import NO_PAIRS
from deploy_kit.quantization.int8 import adaptive_rounding, input_patches
from deploy_kit.quantization.int8.adaptive_rounding import Rounded
from deploy_kit.quantization.int8.plan import Int8Plan


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Weights of one node and the scales to round them with.

    Attributes:
        weights: (outputs, inputs / groups, …) float64 weights.
        scales: (outputs,) float64 scales, or a scalar for all.
        paired: (M, 2) indexes of an output's weights whose integers may not exceed `sums_of_two.MOST` together.
    """

    weights: np.ndarray
    scales: np.ndarray
    paired: np.ndarray = field(default_factory=lambda: NO_PAIRS)

    @property
    def per_row(self) -> np.ndarray:
        """The scales in a shape that divides the weights."""
        ones = [1] * (self.weights.ndim - 1)
        return np.broadcast_to(self.scales, len(self.weights)).reshape(-1, *ones)


def _digest(rows: Rows) -> bytes:
    parts = (rows.weights, rows.scales, rows.paired)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()


def rounded_weights(plan: Int8Plan, rows: dict[ir.Node, Rows]) -> dict[ir.Node, Rounded]:
    """Choose the integers of weights.

    Args:
        plan: A plan whose model is still in float, with the grids that the nodes read.
        rows: Weights by node, in graph order.

    Returns:
        Integers by node, without nodes whose inputs are not sampled.
    """
    # Many graphs are written from one plan, each with other nodes in float: a weight is rounded once for all of them.
    # Its digest is part of the key, as a rewrite around nodes that stay in float may have changed it.
    keys = {node: (str(node.outputs[0].name), _digest(entry)) for node, entry in rows.items()}
    found = {node: plan.rounded[key] for node, key in keys.items() if key in plan.rounded}
    reads = []
    for node, weights in rows.items():
        source = node.inputs[0]
        if node in found:
            continue
        assert source is not None
        entry = input_patches.sampled_inputs(node, plan.grids[source], weights.weights[0].size)
        if entry is not None:
            reads.append(entry)
    if not reads:
        return found
    model = ir.serde.serialize_model(plan.model)
    for done, sample in enumerate(input_patches.sample_patches(model, reads, plan.batches, plan.n_images)):
        plan.on_progress(
            ProgressEvent(stage="quantize", text="weights: rounding by descent", done=done, total=len(reads))
        )
        node = sample.entry.node
        weights = rows[node]
        second = adaptive_rounding.second_moments(sample.read, centered=plan.choices.bias_correction)
        flat = weights.weights.reshape(len(weights.weights), -1)
        whole = adaptive_rounding.integers(flat, weights.per_row.reshape(-1), second, paired=weights.paired)
        found[node] = plan.rounded[keys[node]] = Rounded(
            integers=whole.reshape(weights.weights.shape),
            mean=sample.mean,
            read=sample.read.mean(0, dtype=np.float64),
        )
    return found
