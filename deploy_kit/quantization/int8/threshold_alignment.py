"""Ranges moved by less than a step, so that the bounds of their readers fall on integers of the grid.

    x' = low' + step·q, q = 0 … 255         low' = low − φ·step,  step = (high − low)/(255 − φ − j),  0 ≤ φ < 1, j ≥ 0

A dense block's channel is read by every later layer behind a maximum with a bound t of its own. On integers the bound
is rounded: what is clipped is off by δ = t' − t, once for all of it. Corrected on average by a bias (`portable`), a
variance of δ²·p·(1 − p) is left, p the share of the pixels beyond t; where p is small that is as much as the rounding
of what is not clipped, p·step²/12. Any φ and j cover the range, and one of them puts the bounds that matter near
integers:

    minimal over φ, j:   Σ_readers w·step²·(p/12 + p·(1 − p)·δ²)            δ in steps

w: by how much of its variance the reader's convolution sees a noise on the channel, Σ_o W[o,c]² / Σ_c' W[o,c']²·σ²_c'.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.quantization.int8 import equalizable
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.channel_moments import normal
from deploy_kit.quantization.int8.effective_range import channels
from deploy_kit.quantization.int8.range_selection import ChannelRange
from deploy_kit.quantization.int8.scale_groups import ScaleGroups
from deploy_kit.quantization.ranges import Channels

_STEPS = 255
_PHASES = np.arange(16) / 16
_SPARE = np.arange(8)  # steps that the range may leave unused: at most 3 % of the resolution
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "Identity"})


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What one reader makes of an activation.

    Attributes:
        limits: (C,) bounds; ±`NEVER` where there is none.
        upper: Whether they bound from above.
        weight: (C,) by how much of its variance the reader sees a noise of variance 1.
    """

    limits: np.ndarray
    upper: bool
    weight: np.ndarray


def align_spans(groups: ScaleGroups, seen: Mapping[ir.Value, Channels], spans: dict[ir.Value, ChannelRange]) -> None:
    """Align the ranges of all sources whose channels equalization will scale and shift one by one, in place."""
    stds = {value: channels.std for value, channels in seen.items()}
    for group in groups.all:
        if not equalizable.shifts(group, groups):
            continue
        for source in group.sources:
            spans[source] = aligned(spans[source], seen[source], bounds_of(source, stds))


def bounds_of(source: ir.Value, stds: Mapping[ir.Value, np.ndarray]) -> tuple[Bound, ...]:
    """List the bounds that the readers of an activation put on it.

    Args:
        source: An activation of C channels.
        stds: Deviations (C,) of the activations that nodes compute.
    """
    return tuple(_bounds(source, slice(0, channels(source)), stds))


def aligned(span: ChannelRange, seen: Channels, bounds: tuple[Bound, ...]) -> ChannelRange:
    """Move the ends of each channel's range outwards, by a few steps at most, to where the readers' bounds fit best."""
    low, high = span
    open_ = high > low
    if not bounds or not open_.any():
        return span
    phase, spare = (part.reshape(-1, 1) for part in np.meshgrid(_PHASES, _SPARE, indexing="ij"))
    step = (high - low) / (_STEPS - phase - spare)
    begin = low - phase * step
    unit = np.where(open_, step, 1.0)
    cost = np.zeros_like(step)
    for bound in bounds:
        inside = (bound.limits >= low) & (bound.limits <= high)
        t = np.where(inside, bound.limits, low)
        distance = (seen.mean - t) * (-1.0 if bound.upper else 1.0)
        share = np.where(inside, normal(distance / np.maximum(seen.std, 1e-12)), 1.0)
        at = (t - begin) / unit
        off = np.where(inside, at - np.rint(at), 0.0)
        cost += bound.weight * step**2 * (share / 12 + share * (1 - share) * off**2)
    best, columns = cost.argmin(0), np.arange(len(low))
    begin, step = begin[best, columns], step[best, columns]
    return np.where(open_, begin, low), np.where(open_, begin + _STEPS * step, high)


def _bounds(value: ir.Value, part: slice, stds: Mapping[ir.Value, np.ndarray]) -> Iterator[Bound]:
    """Follow an activation through what moves it, `part` being its channels."""
    for node, index in value.uses():
        result = node.outputs[0]
        if node.op_type == "Concat" and grouping.shares_grid(node):
            start = sum(channels(entry) for entry in node.inputs[:index])
            yield from _bounds(result, slice(start + part.start, start + part.stop), stds)
        elif node.op_type in ("Max", "Min") and grouping.bound(node) is not None:
            limits = np.broadcast_to(edit.array(node.inputs[1]).reshape(-1), (channels(value),))[part]
            yield Bound(limits=limits, upper=node.op_type == "Min", weight=_weight(result, stds)[part])
            yield from _bounds(result, part, stds)
        elif node.op_type in ("MaxPool", "Identity", "Resize", "Pad") and grouping.shares_grid(node):
            yield from _bounds(result, part, stds)


def _weight(value: ir.Value, stds: Mapping[ir.Value, np.ndarray]) -> np.ndarray:
    """Compute w (C,) of all convolutions that read an activation, at once or pooled."""
    total = np.zeros(channels(value))
    for node in value.consumers():
        if node.op_type in _POOLS or node.op_type in ("Max", "Min"):
            total += _weight(node.outputs[0], stds)
        elif node.op_type == "Conv" and grouping.quantizable(node) and node.attributes.get_int("group", 1) == 1:
            weight = edit.array(node.inputs[1])
            square = (weight.reshape(*weight.shape[:2], -1) ** 2).sum(2)
            variance = square @ _std(value, stds) ** 2
            total += (square / np.maximum(variance, variance.max() * 1e-6 + 1e-30)[:, None]).mean(0)
    return total


def _std(value: ir.Value, stds: Mapping[ir.Value, np.ndarray]) -> np.ndarray:
    """Return the deviations (C,) of an activation: its own, or those of the parts that it was moved from."""
    if value in stds:
        return stds[value]
    producer = value.producer()
    assert producer is not None
    return np.concatenate([_std(part, stds) for part in grouping.activations(producer)])
