"""The part of an activation's range that its readers can tell apart: the rest need not be encoded.

A dense layer begins with BN and ReLU: relu(a·x + b), a > 0, is 0 for all x below t = −b/a. A channel of a block is read
by every later layer, each with its own t; below the smallest of them nothing is lost when the quantizer saturates. So
the grid begins there and not at the smallest observed value: exact, and the step is nearly halved.

    max(x, t): [t, ∞)      min(x, t): (−∞, t]      BN + ReLU: [t, ∞) for a > 0, (−∞, t] for a < 0, nothing for a = 0
    what moves whole channels: the intervals of its result;  any other reader: everything
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes.batchnorm_to_max import NEVER
from deploy_kit.quantization.int8 import channel_moves
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.scale_groups import ScaleGroups


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval for each channel, (C,) float64; empty where `low` is above `high`."""

    low: np.ndarray
    high: np.ndarray


def intervals(model: ir.Model, groups: ScaleGroups) -> dict[ir.Value, Interval]:
    """Find the interval of every grouped activation whose channels are known.

    The readers' intervals are united: a value must be encoded as finely as its most demanding reader needs.
    """
    known: dict[ir.Value, Interval] = {}
    values = [node.outputs[0] for node in model.graph if node.outputs[0] in groups.of]
    for value in reversed(values):  # readers first: the interval of a concatenation decides those of its parts
        shape = value.shape
        if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
            continue
        needed = [_by(node, index, shape[1], known) for node, index in value.uses()]
        if value.is_graph_output():
            needed.append(_all(shape[1]))
        low = np.min([entry.low for entry in needed], axis=0, initial=np.inf)
        high = np.max([entry.high for entry in needed], axis=0, initial=-np.inf)
        known[value] = Interval(low=low, high=high)
    return known


def _by(node: ir.Node, index: int, n: int, known: dict[ir.Value, Interval]) -> Interval:
    """Return the interval that one reader can tell apart of its input number `index`, which has `n` channels."""
    result = known.get(node.outputs[0])
    if node.op_type in ("Max", "Min") and grouping.bound(node) is not None:
        limits = np.broadcast_to(edit.array(node.inputs[1]).reshape(-1), (n,))
        return _bounded(limits, node.op_type, result or _all(n))
    if node.op_type == "Relu":
        return Interval(low=np.zeros(n), high=(result or _all(n)).high)
    if result is not None and grouping.shares_grid(node) and (origins := channel_moves.origins(node)) is not None:
        start = sum(channels(value) for value in node.inputs[:index])
        low, high = np.full(origins.max() + 1, np.inf), np.full(origins.max() + 1, -np.inf)
        np.minimum.at(low, origins, result.low[:, None])
        np.maximum.at(high, origins, result.high[:, None])
        missing = max(0, start + n - len(low))  # channels that no part of the result holds
        low, high = np.append(low, np.full(missing, np.inf)), np.append(high, np.full(missing, -np.inf))
        return Interval(low=low[start : start + n], high=high[start : start + n])
    if node.op_type == "BatchNormalization" and grouping.quantizable(node) and grouping.fused_relu(node) is not None:
        return _behind_norm(node)
    return _all(n)


def _bounded(limits: np.ndarray, operator: str, result: Interval) -> Interval:
    # Where the bound is none, what follows it decides.
    active = np.abs(limits) < NEVER
    if operator == "Max":
        return Interval(low=np.where(active, limits, result.low), high=result.high)
    return Interval(low=result.low, high=np.where(active, limits, result.high))


def _behind_norm(norm: ir.Node) -> Interval:
    slope, offset = edit.affine(norm)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        threshold = -offset / slope
    low = np.where(slope > 0, threshold, np.where(slope < 0, -np.inf, np.inf))
    high = np.where(slope < 0, threshold, np.where(slope > 0, np.inf, -np.inf))
    return Interval(low=low, high=high)


def channels(value: ir.Value | None) -> int:
    """Return the number of channels of an activation whose shape is known."""
    found = value.shape[1] if value is not None and value.shape is not None else None
    assert isinstance(found, int)
    return found


def _all(n: int) -> Interval:
    return Interval(low=np.full(n, -np.inf), high=np.full(n, np.inf))
