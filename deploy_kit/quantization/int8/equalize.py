"""Scale the channels of an activation to the same range, exactly in float, so that one scale fits all of them.

    x = r·x' + m                                r > 0 and m for each channel: x' spans the grid
    producer:  W[c] / r[c], (b[c] − m[c]) / r[c]                the convolution that makes channel c
               γ[c] / r[c], (β[c] − m[c]) / r[c]                a BN, whose channels are concatenated
               g[c] / r[c]                                      a product with gates g, one for each channel
    consumer:  BN: mean (μ − m)/r, slope γ·r/σ                  a·x + b = (a·r)·x' + (a·m + b)
               W[:, c]·r[c], b + Σ W[:, c]·m[c]                 a convolution
    between:   max(x, t) → max(x', (t − m)/r), relu(x) → max(x', −m/r)
    beside:    mean over pixels, which is scaled as its channels are, and the convolutions that read it

Max and average poolings and concatenations commute with it. The maps of a DenseNet block differ in range by orders of
magnitude; on one shared scale without this step the small ones vanish in rounding (18 dB of logit SQNR on the demo),
and maps behind a ReLU would use half of the grid. m puts the low end on an integer: a dense block's channels begin at a
bound of their readers (`effective_range`), which is then exact. A uint8 grid from -1 to 1 has 127.5 steps below 0, and
every such bound would be off by half a step.

Where something else makes or reads some of a group's channels (a sum, a Split, the input), these stay, and the others
are brought to their range. How far, `equalization_strength` chooses by the noise that readers would have. Between two
convolutions that nothing is concatenated with, ranges are scaled by the square roots of what would make them equal, as
in the source.

Source of the idea: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019;
here the ranges are observed, and the BN that cannot be folded absorbs the inverse for free.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import channel_affine, edit
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.graph.passes.batchnorm_to_max import NEVER
from deploy_kit.quantization.int8 import channel_moves, equalizable, equalization_strength
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.equalizable import LINEAR, Freedom, depthwise, gate, maker, pooled
from deploy_kit.quantization.int8.range_selection import ChannelRange
from deploy_kit.quantization.int8.scale_groups import ScaleGroup, ScaleGroups
from deploy_kit.quantization.ranges import Channels

_FLOOR = 1e-3  # of the median reach: a channel that is (nearly) dead is not scaled up, or it would be noise


@dataclass(frozen=True, kw_only=True)
class EqualizedGroup:
    """One group after equalization.

    Attributes:
        group: The group.
        reach: (channels,) half the range of each channel before, of all sources in graph order except the input.
        refused: Why it was left as it is; empty if it was scaled.
    """

    group: ScaleGroup
    reach: np.ndarray
    refused: str = ""


def equalize_channels(
    model: ir.Model,
    groups: ScaleGroups,
    seen: dict[ir.Value, Channels],
    means: dict[ir.Value, np.ndarray],
    spans: dict[ir.Value, ChannelRange],
    *,
    signed: bool = False,
    narrow_sums: bool = False,
) -> tuple[EqualizedGroup, ...]:
    """Equalize every group, and every channel of one, whose makers and readers are (transposed) convolutions and BNs.

    It is done in place.

    Args:
        model: A float32 graph; its outputs do not change but for rounding.
        groups: Groups of this graph; ReLUs among its nodes may become maxima, their values stay.
        seen: Statistics of activations; updated to the scaled values.
        means: Means of further activations; updated likewise.
        spans: Lowest and highest value per channel to encode, of each source; updated likewise.
        signed: int8 around 0, whose grid ends at ±127, instead of uint8, which has 128 steps below 0 and 127 above.
        narrow_sums: Two products must fit into 16 bits (`sums_of_two`).

    Returns:
        One row for each group with a concatenation.
    """
    rows = []
    for group in groups.all:
        found = equalizable.freedom(group, groups)
        ranges = {source: spans[source] for source in group.sources if source in spans}
        if found.any:
            ends = {source: spans.get(source, (seen[source].low, seen[source].high)) for source in group.sources}
            shifted = equalizable.may_shift(group, found)
            window = _window(ends, found, signed=signed, shifted=shifted)
            maps = _maps(ends, found, window, shifted=shifted)
            if found.refused:
                maps = _fitting(group, maps, ends, {v: seen[v].std for v in group.sources}, narrow_sums)
            elif not (shifted or group.concats):
                maps = {value: _partly(entry) for value, entry in maps.items()}
            rewrite(model, group, maps)
            for value, by in maps.items():
                if value in seen:
                    seen[value] = _moved(seen[value], by)
                if value in means:
                    means[value] = by.inverse(means[value])
                if value in spans:
                    low, high = spans[value]
                    spans[value] = by.inverse(low), by.inverse(high)
        if group.concats:
            reach = np.concatenate([np.empty(0), *((high - low) / 2 for low, high in ranges.values())])
            rows.append(EqualizedGroup(group=group, reach=reach, refused=_left(found, group)))
    return tuple(rows)


def _left(found: Freedom, group: ScaleGroup) -> str:
    """Say what was not scaled, and why."""
    if not (found.refused and found.any):
        return found.refused
    free = np.concatenate([found.channels[source] for source in group.sources])
    return f"{int((~free).sum())} of {len(free)} channels, as {found.refused}"


def _window(ends: dict[ir.Value, ChannelRange], found: Freedom, *, signed: bool, shifted: bool) -> tuple[float, float]:
    """Return the range to bring channels to: that of those which cannot be scaled, else one of length 2.

    Args:
        ends: Lowest and highest value per channel of each source.
        found: The channels that can be scaled.
        signed: As in `equalize_channels`.
        shifted: Whether channels may be shifted.
    """
    fixed = [(low[~found.channels[v]], high[~found.channels[v]]) for v, (low, high) in ends.items()]
    low = min((float(a.min()) for a, _ in fixed if len(a)), default=0.0)
    high = max((float(b.max()) for _, b in fixed if len(b)), default=0.0)
    if signed:
        low, high = min(low, -high), max(high, -low)
    if high > low:
        return low, high
    below = 128 / 255 if shifted and not signed else 0.5
    return -2 * below, 2 - 2 * below


def _maps(
    ranges: dict[ir.Value, ChannelRange], found: Freedom, window: tuple[float, float], *, shifted: bool
) -> dict[ir.Value, Affine]:
    """Choose r and m for each source; r = 1 and m = 0 for channels that cannot be scaled.

    Channels far below the group's median stay small.

    Args:
        ranges: Lowest and highest value per channel of each source.
        found: The channels that can be scaled.
        window: Range to bring them to.
        shifted: Whether channels may be shifted.
    """
    factors: dict[ir.Value, tuple[np.ndarray, bool]] = {}
    for source, (low, high) in ranges.items():
        producer = source.producer()
        # A ReLU that is fused into its convolution clips at 0, so its result cannot be shifted; nor can a product's.
        moves = shifted and producer is not None and producer.op_type not in ("Relu", "Mul")
        factors[source] = (high - low) / (window[1] - window[0]) if moves else _into(window, low, high), moves
    floor = least(np.concatenate([r[found.channels[source]] for source, (r, _) in factors.items()]), _FLOOR)
    maps = {}
    for source, (r, moves) in factors.items():
        free, wide = found.channels[source], np.maximum(r, floor)
        m = ranges[source][0] - wide * window[0] if moves else np.zeros_like(wide)
        maps[source] = Affine(r=np.where(free, wide, 1.0), m=np.where(free, m, 0.0))
    return maps


def _into(window: tuple[float, float], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the least factors r (C,) for which low/r and high/r lie in a window; beyond 0 alone, as long as it is."""
    bottom, top = window
    length = (high - low) / (top - bottom)
    above = high / top if top > 0 else np.where(high > 0, length, 0.0)
    below = low / bottom if bottom < 0 else np.where(low < 0, length, 0.0)
    return np.maximum(np.maximum(above, below), 0.0)


def _fitting(
    group: ScaleGroup,
    maps: dict[ir.Value, Affine],
    ends: dict[ir.Value, ChannelRange],
    stds: dict[ir.Value, np.ndarray],
    narrow_sums: bool,
) -> dict[ir.Value, Affine]:
    """Bring channels to the range of others by as much as their readers gain by it."""
    found = list[tuple[float, dict[ir.Value, Affine]]]()
    for strength in equalization_strength.STRENGTHS:
        partly = {v: _weakened(by, ends[v], strength) for v, by in maps.items()}
        moved = [(by.inverse(ends[v][0]), by.inverse(ends[v][1])) for v, by in partly.items()]
        span = max(float(high.max()) for _, high in moved) - min(float(low.min()) for low, _ in moved)
        every, spread = dict(partly), dict(stds)
        for value in group.values:
            if value not in every:
                _follow(value, every)
                spread[value] = _of_parts(value, spread)
        found.append((equalization_strength.noise(group, every, spread, span, narrow_sums), partly))
    return min(found, key=lambda one: one[0])[1]


def _weakened(by: Affine, ends: ChannelRange, strength: float) -> Affine:
    """Scale by a power of the factors, around the middle of where each channel would come."""
    if strength == 1:
        return by
    low, high = ends
    middle = (low + high) / 2
    r = by.r**strength
    moved = by.m != 0
    return Affine(r=r, m=np.where(moved & (strength > 0), middle - r * by.inverse(middle), 0.0))


def _producer(value: ir.Value) -> ir.Node:
    producer = value.producer()
    assert producer is not None
    return producer


def _of_parts(value: ir.Value, of: dict[ir.Value, np.ndarray]) -> np.ndarray:
    """Return numbers (C,) of a moved value from those of its parts; 1 where its channels are not known."""
    producer = _producer(value)
    origins = channel_moves.origins(producer)
    if origins is None:
        return np.ones(value.shape[1] if value.shape is not None and isinstance(value.shape[1], int) else 1)
    return np.asarray(np.concatenate([of[part] for part in grouping.activations(producer)])[origins[:, 0]])


def _follow(value: ir.Value, maps: dict[ir.Value, Affine]) -> None:
    """Note how a moved value is scaled: as its parts are, and not at all where its channels are not known."""
    producer = _producer(value)
    parts = {part: maps[part] for part in grouping.activations(producer)}
    r = _of_parts(value, {part: by.r for part, by in parts.items()})
    m = _of_parts(value, {part: by.m for part, by in parts.items()})
    known = channel_moves.origins(producer) is not None
    maps[value] = Affine(r=r, m=m if known else np.zeros_like(r))


def _partly(by: Affine) -> Affine:
    """Scale by the geometric mean of what would make all ranges equal and of nothing."""
    return Affine(r=np.sqrt(by.r / np.exp(np.log(by.r).mean())), m=by.m)


def least(reach: np.ndarray, share: float) -> float:
    """Return the least reach that a channel counts with, so that one that is (nearly) dead is not scaled up to noise.

    Args:
        reach: (C,) half ranges, none below 0.
        share: Share of the median reach. Where most channels are dead that is 0, and the median of the others counts.
    """
    alive = reach[reach > 0]
    return float(np.median(reach) or np.median(alive)) * share if len(alive) else 1.0


def _moved(seen: Channels, by: Affine) -> Channels:
    return Channels(
        low=by.inverse(seen.low), high=by.inverse(seen.high), mean=by.inverse(seen.mean), std=seen.std / by.r
    )


def rewrite(model: ir.Model, group: ScaleGroup, maps: dict[ir.Value, Affine]) -> None:
    """Rewrite the nodes of a group and around it; completes `maps` for all values that it scales, and records them."""
    for source in group.sources:
        if _changes(maps[source]):
            node = maker(source)
            assert node is not None
            divide_rows(model, node, maps[source])
    for value in group.values:
        if value not in maps:
            _follow(value, maps)
            _shift_bound(model, _producer(value), maps[value])
    maps |= {pool.outputs[0]: maps[value] for value in group.values for pool in pooled(value)}
    for value, by in maps.items():
        for node in value.consumers() if _changes(by) else ():
            if node.op_type == "BatchNormalization":
                _absorb_in_norm(model, node, by)
            elif node.op_type in LINEAR:
                absorb_in_conv(model, node, by)
    channel_affine.record_affines(
        model,
        {str(value.name): by for value, by in maps.items() if value not in group.values or not _joins(value, group)},
    )


def _changes(by: Affine) -> bool:
    return bool((by.r != 1).any() or by.m.any())


def _joins(value: ir.Value, group: ScaleGroup) -> bool:
    """Return whether a value holds the channels of several sources, concatenated."""
    while value not in group.sources:
        producer = value.producer()
        if producer is None or producer.op_type == "Concat":
            return True
        value = grouping.activations(producer)[0]
    return False


def _shift_bound(model: ir.Model, node: ir.Node, by: Affine) -> None:
    """Scale and shift the bound of a maximum or minimum; a ReLU among shifted values becomes a maximum."""
    rank = len(node.outputs[0].shape or ())
    column = (1, -1, *[1] * (rank - 2))
    if node.op_type in ("Max", "Min"):
        limit = edit.array(node.inputs[1]).reshape(-1)
        # A channel that is not bounded stays so, whatever its scale.
        moved = np.where(np.abs(limit) < NEVER, by.inverse(limit), limit)
        replace(model, node, 1, np.clip(moved, -NEVER, NEVER).reshape(column))
    elif node.op_type == "Relu" and by.m.any():
        node.op_type = "Max"
        node.resize_inputs(2)
        bound = edit.initializer(
            model, f"{node.outputs[0].name}.zero", by.inverse(np.zeros_like(by.m)).reshape(column), ir.DataType.FLOAT
        )
        node.replace_input_with(1, bound)


def divide_rows(model: ir.Model, node: ir.Node, by: Affine) -> None:
    """Let a convolution, a BN or a product with gates make the scaled result."""
    if node.op_type == "Mul":
        _divide_gates(model, node, by)
        return
    if node.op_type == "BatchNormalization":
        replace(model, node, 1, edit.array(node.inputs[1]) / by.r)
        replace(model, node, 2, by.inverse(edit.array(node.inputs[2])))
        return
    weight = edit.array(node.inputs[1])
    ones, r = [1] * (weight.ndim - 2), by.r.reshape(-1, 1)
    if node.op_type == "ConvTranspose":  # (inputs, outputs / groups, …)
        n = node.attributes.get_int("group", 1)
        r = by.r.reshape(n, -1).repeat(len(weight) // n, axis=0)
    bias = edit.bias(node, len(by.r))
    replace(model, node, 1, weight / r.reshape(*r.shape, *ones))
    replace(model, node, 2, by.inverse(bias))


def _divide_gates(model: ir.Model, product: ir.Node, by: Affine) -> None:
    """Divide the gates of a product: a few numbers in float, as the product itself is."""
    if (by.r == 1).all():
        return
    index, result = gate(product), product.outputs[0]
    assert index is not None and not by.m.any()
    gates = product.inputs[index]
    assert gates is not None
    inverse = edit.initializer(
        model, f"{result.name}.inverse", (1 / by.r).reshape(1, -1, *[1] * (len(result.shape or ()) - 2)),
        result.dtype or ir.DataType.FLOAT,
    )  # fmt: skip
    name = edit.free_name(model, f"{result.name}.gates")
    divided = ir.node("Mul", [gates, inverse], name=name)
    out = divided.outputs[0]
    out.name, out.type, out.shape = name, gates.type, gates.shape
    model.graph.insert_before(product, divided)
    product.replace_input_with(index, out)


def absorb_in_conv(model: ir.Model, conv: ir.Node, by: Affine) -> None:
    """Let a convolution take the scaled input: weights times r, bias plus Σ W·m."""
    weight = edit.array(conv.inputs[1])
    first = conv.op_type == "ConvTranspose" or depthwise(conv)
    row = (-1, 1, *[1] * (weight.ndim - 2)) if first else (1, -1, *[1] * (weight.ndim - 2))
    replace(model, conv, 1, weight * by.r.reshape(row))
    if conv.op_type == "Conv":  # in front of a transposed one nothing is shifted
        moved = (weight * by.m.reshape(row)).reshape(len(weight), -1).sum(1)
        replace(model, conv, 2, edit.bias(conv, len(weight)) + moved)


def _absorb_in_norm(model: ir.Model, norm: ir.Node, by: Affine) -> None:
    """Rewrite y = γ(r·x' + m − μ)/σ + β with mean (μ − m)/r and variance 1: γ' = γ·r/σ."""
    slope, _ = edit.affine(norm)
    mean = edit.array(norm.inputs[3])
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    # The attribute ε stays, so its root is part of γ': γ'/√(1 + ε) is the slope exactly.
    parts = {1: slope * by.r * np.sqrt(1.0 + epsilon), 3: by.inverse(mean), 4: np.ones_like(mean)}
    for index, values in parts.items():
        replace(model, norm, index, values)


def replace(model: ir.Model, node: ir.Node, index: int, values: np.ndarray) -> None:
    """Replace a constant input of a node, for this node alone: others may read the old one."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    dtype = (old.dtype if old is not None else None) or ir.DataType.FLOAT
    name = f"{node.outputs[0].name}.equalized{index}"
    node.replace_input_with(index, edit.initializer(model, name, values, dtype))
