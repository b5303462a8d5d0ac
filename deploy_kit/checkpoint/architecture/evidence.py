"""What BatchNorm statistics show: a BN's running mean and variance describe the data that passed through it.

E1  In a dense block the same channels pass through BN after BN: their statistics repeat at the front where new features
    are appended, at the back where they are prepended.
E2  Average pooling keeps means and a 1×1 convolution is linear: behind a transition the next mean is W·β without a ReLU
    and W·E[relu(N(β, γ²))] with one.
E3  A max pool in the stem lifts the first block's means above those of the stem's BN and ReLU.
E4  The first BN's mean is the stem's weights times the mean of the input.
E6  Inside a dense layer the second BN's mean is W·E[f(N(β, γ²))] of the first BN and the activation f; what f lets pass
    below zero is measured by least squares: nothing behind a ReLU, its slope behind a leaky one, all without any.
E7  A decoder's dense block reads the maps of its level of the way down, whose statistics the BN of the transition there
    has: they repeat at the back of the block's first BN where the enlarged maps come first, else at its front.
E5  Behind a ReLU no mean lies below zero: a BN with negative means reads no ReLU, one without any reads one.

They are evidence and no proof: frozen, recalibrated or random statistics leave a question open.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.dense_layers import Joint
from deploy_kit.checkpoint.architecture.heads import FoundHeads
from deploy_kit.checkpoint.architecture.leaves import Leaf
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.records.densenet import Order

# Thresholds lie between what was measured on networks of known make (calibrated, or trained 120 to 150 steps).
# E1: 1.00 of the places in the right order against 0.02 in the other; memory-efficient layers with dropout update their
# statistics twice and still reach 0.71, so the two are compared and equality is not demanded.
_SAME, _OTHER = 0.5, 0.1
_SOME, _NONE = 0.3, 0.03  # where updates twice a step and dropout leave fewer, and the other order has none
# E2: networks with a ReLU are at most 0.08 deviations off with one and at least 0.36 without; those without one are
# exact without and at least 0.16 off with one.
_FITS, _MISSES, _TIMES = 0.12, 0.12, 2.5
# Off both ways: a max pool (0.31 and 0.48) or another activation (SiLU 0.21 and 0.25).
_CONTRADICTS = 0.2
# E3: at most 0.01 without a pool, at least 0.13 with one.
_FLAT, _RAISED = 0.06, 0.1
# E5: of features that no ReLU has cut, about half of the means are negative.
_BELOW, _MANY, _MIN_CHANNELS = 0.05, 0.05, 16
# E6: 0.00 to 0.03 behind ReLUs of calibrated and of trained networks, 0.10 to 0.12 behind leaky ones of slope 0.1; GELU
# 0.24, SiLU 0.4, ELU 0.55, no activation 1.00. Left over are at most 0.09 deviations; of random statistics far more.
_PASSES, _LEFT_OVER = 0.06, 0.12
_NEAR = 0.01  # share of a standard deviation within which two channels are the same

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the statistics say.

    Attributes:
        facts: What they decide.
        why: Fact → the measured numbers.
        alive: Whether they are statistics of real data: channels repeat from BN to BN.
        doubts: Sentences for people: what the statistics contradict.
        contradicted: Whether they rule out an average pool in the transitions, behind a ReLU and behind none.
        untrained: Whether every BN holds its initial values.
        passes: Share of what lies below zero that the dense layers' activation lets pass, where it is no ReLU; None
            where it may be one.
        input_mean: Estimated mean of each input channel; empty where the stem has no BN.
    """

    facts: ArchitectureFacts
    why: Mapping[str, str]
    alive: bool
    doubts: tuple[str, ...]
    contradicted: bool
    untrained: bool
    passes: float | None
    input_mean: tuple[float, ...]


def weigh(body: Body, head: FoundHeads, tensors: Tensors) -> Evidence:
    """Weigh the statistics of a network's BNs.

    Args:
        body: The network without its head.
        head: Its heads.
        tensors: The file's tensors by name.
    """
    untrained = all(_is_initial(unit.norm1, tensors) for unit in body.units)
    why: dict[str, str] = {}
    doubts: list[str] = []
    facts: dict[str, object] = {}
    contradicted = False
    append, prepend = (0.0, 0.0) if untrained else _repeats(body, tensors)
    high, low = max(append, prepend), min(append, prepend)
    if (high > _SAME and low < _OTHER) or (high > _SOME and low < _NONE):
        facts["concat"] = "append" if append > prepend else "prepend"
        why["concat"] = f"channels repeat in {append:.0%} (appended) and {prepend:.0%} (prepended) of the places"
    up_first, skip_first = (0.0, 0.0) if untrained else _joined(body, tensors)
    if max(up_first, skip_first) > _SAME and min(up_first, skip_first) < _OTHER:
        facts["skip_order"] = "up_first" if up_first > skip_first else "skip_first"
        why["skip_order"] = (
            f"the encoder's channels repeat in {up_first:.0%} (behind the enlarged maps) and {skip_first:.0%} (before "
            "them) of the places"
        )
    orders = {} if untrained else _orders(body, head, tensors)
    # E2 and E3 compare means across layers, which says nothing where E1 shows that the statistics are of no data.
    alive = "concat" in facts
    if alive and (errors := _transition_errors(body, tensors)) is not None:
        bare, relu = errors
        text = f"next block's means are {relu:.2f} σ off with a ReLU, {bare:.2f} σ without"
        if min(errors) < _FITS and max(errors) > max(_MISSES, _TIMES * min(errors)):
            # Where a ReLU stands before the BN none stands behind it, and the mean is W·β as well.
            before = (
                relu > bare and "transition_order" in orders and orders["transition_order"][0] == "activation_first"
            )
            facts |= {"transition_relu": relu < bare or before, "transition_pool": "avg"}
            why |= dict.fromkeys(("transition_relu", "transition_pool"), text)
        elif body.decoder is None or not body.decoder.dense:  # an FC-DenseNet has maximum pools there
            contradicted = min(errors) > _CONTRADICTS
            doubts.append(f"BN statistics fit no ReLU and average pool in the transitions ({text})")
    # Where BNs elsewhere in the file have negative means, those without any are no accident of random statistics.
    contrast = any(order == "norm_first" for order, _ in orders.values())
    for name, (order, told) in orders.items():
        if alive or name == "hidden_order" or (contrast and order == "activation_first"):
            facts[name], why[name] = order, told
    # E3 assumes a ReLU behind the stem's BN; where the transitions have none, the stem may have none either.
    if alive and facts.get("transition_relu") is not False and (gain := _stem_gain(body, tensors)) is not None:
        if abs(gain) < _FLAT:
            facts["stem_pool"] = "none"
        elif gain > _RAISED and len(body.stem) == 1:  # behind a deep stem it may also be a max and a blur
            facts["stem_pool"] = "max"
        why["stem_pool"] = f"the first block's means are {gain:.2f} σ above those of the stem's BN and ReLU"
    return Evidence(
        facts=ArchitectureFacts(**facts, source=Source("statistics", "BN statistics")),  # type: ignore[arg-type]
        why=why,
        alive=alive,
        doubts=tuple(doubts),
        contradicted=contradicted,
        untrained=untrained,
        passes=None if untrained else _passes(body, tensors),
        input_mean=_input_mean(body, tensors),
    )


def _orders(body: Body, head: FoundHeads, tensors: Tensors) -> dict[str, tuple[Order, str]]:
    """Measure E5 on the BNs of dense layers, of transitions, at the end, and between linear layers."""
    rows = [step for row in (head.trunk, *(row for _, row in head.heads)) for step in row]
    kinds = [step.layer.kind for step in rows]
    hidden = rows[kinds.index("linear") :] if "linear" in kinds else []
    groups: dict[str, list[Leaf | None]] = {
        "dense_order": [unit.norm2 or unit.norm1 for unit in body.units],
        "transition_order": [joint.norm for joint in body.chain.transitions],
        "final_order": [body.final],
        "hidden_order": [step.leaf for step in hidden if step.layer.kind == "norm"],
    }
    found: dict[str, tuple[Order, str]] = {}
    for name, norms in groups.items():
        means = [_part(norm, "running_mean", tensors) for norm in norms if norm is not None]
        deviations = [_part(norm, "running_var", tensors).sqrt() for norm in norms if norm is not None]
        if sum(len(mean) for mean in means) < _MIN_CHANNELS:
            continue
        mean, deviation = torch.cat(means), torch.cat(deviations)
        share = float((mean < -_BELOW * deviation).double().mean())
        if share > _MANY:
            found[name] = ("norm_first", f"{share:.0%} of its BNs' means are negative: no ReLU stands before them")
        elif not bool((mean < -1e-6).any()) and bool((mean > 0).any()):
            found[name] = ("activation_first", "none of its BNs' means is negative: a ReLU stands before them")
    return found


def _part(leaf: Leaf, part: str, tensors: Tensors) -> Tensor:
    """Return one tensor of a BN in float64; an absent weight is 1, an absent bias 0."""
    if part in leaf.parts:
        return tensors[leaf.parts[part]].double()
    return torch.ones(leaf.out).double() if part == "weight" else torch.zeros(leaf.out).double()


def _is_initial(norm: Leaf, tensors: Tensors) -> bool:
    mean, variance = _part(norm, "running_mean", tensors), _part(norm, "running_var", tensors)
    return bool((mean == 0).all() and (variance == 1).all())


def _repeats(body: Body, tensors: Tensors) -> tuple[float, float]:
    """Measure E1: in which share of its input channels a BN repeats the one before it, at the front and at the back."""
    front = back = total = 0
    ends: list[Leaf | None] = [joint.norm for joint in body.chain.transitions]
    ends += [body.final] * (len(ends) < len(body.chain.blocks))
    ends += [None] * (len(body.blocks) - len(ends))
    for block, last in zip(body.blocks, ends, strict=True):
        row = [unit.norm1 for unit in block] + [last] * (last is not None)
        for a, b in itertools.pairwise(row):
            if a is None or b is None or b.out <= a.out:
                continue
            width = a.out
            total += width
            front += _alike(a, b, slice(0, width), tensors)
            back += _alike(a, b, slice(b.out - width, b.out), tensors)
    return (front / total, back / total) if total else (0.0, 0.0)


def _joined(body: Body, tensors: Tensors) -> tuple[float, float]:
    """Measure E7: in which share of its places a block repeats the encoder's map, at its back and at its front."""
    back = front = total = 0
    levels = body.decoder.levels if body.decoder is not None and body.decoder.dense else ()
    for level, joint in zip(levels, reversed(body.chain.transitions), strict=False):
        if joint.norm is None:
            continue
        first, width = level.units[0].norm1, joint.norm.out
        total += width
        back += _alike(joint.norm, first, slice(first.out - width, first.out), tensors)
        front += _alike(joint.norm, first, slice(0, width), tensors)
    return (back / total, front / total) if total else (0.0, 0.0)


def _alike(a: Leaf, b: Leaf, where: slice, tensors: Tensors) -> int:
    """Count the channels of `a` whose mean and deviation `b` has at `where`, within 1% of a deviation."""
    deviation = _part(a, "running_var", tensors).sqrt()
    means = _part(a, "running_mean", tensors) - _part(b, "running_mean", tensors)[where]
    deviations = deviation - _part(b, "running_var", tensors)[where].sqrt()
    near = _NEAR * deviation.clamp(min=1e-12)
    # A dead channel (no variance, no mean) is like every other dead channel: it proves nothing.
    lively = (deviation > 1e-6) | (_part(a, "running_mean", tensors).abs() > 1e-6)
    return int(((means.abs() <= near) & (deviations.abs() <= near) & lively).sum())


def rectified_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """Compute E[max(0, x)] of x ~ N(mean, deviation²) = mean Φ(z) + deviation φ(z), z = mean / deviation."""
    z = mean / deviation.clamp(min=1e-12)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    result: Tensor = mean * torch.special.ndtr(z) + deviation * density
    return result


def _transition_errors(body: Body, tensors: Tensors) -> tuple[float, float] | None:
    """Measure E2: how far the next block's means are, in deviations, from those predicted without and with a ReLU."""
    errors: list[tuple[Tensor, Tensor]] = []
    for joint, block in zip(body.chain.transitions, body.chain.blocks[1:], strict=False):
        if joint.norm is None or max(joint.conv.kernel) > 1:
            continue  # W·β holds for a BN and a 1×1 convolution alone
        after = block[0].norm1
        deviation = _part(after, "running_var", tensors).sqrt().clamp(min=1e-12)
        mean = _part(after, "running_mean", tensors)
        beta, gamma = (_part(joint.norm, part, tensors) for part in ("bias", "weight"))
        # A BN's output has mean β and deviation |γ| by its definition, whatever the data were.
        guesses = (beta, rectified_mean(beta, gamma.abs()))
        bare, relu = (((_through(joint, guess, tensors) - mean).abs() / deviation) for guess in guesses)
        errors.append((bare, relu))
    if not errors:
        return None
    return tuple(float(torch.cat(row).mean()) for row in zip(*errors, strict=True))  # type: ignore[return-value]


def _through(joint: Joint, means: Tensor, tensors: Tensors) -> Tensor:
    """Send channel means through a transition's 1×1 convolution."""
    weight = tensors[joint.conv.parts["weight"]].double().flatten(1)
    groups = joint.read // joint.conv.read
    parts = means.reshape(groups, -1)
    out = torch.einsum("goi,gi->go", weight.reshape(groups, -1, weight.shape[1]), parts).flatten()
    return out + tensors[joint.conv.parts["bias"]].double() if joint.conv.bias else out


def _passes(body: Body, tensors: Tensors) -> float | None:
    """Measure E6 over all bottlenecks: the share of what lies below zero that their activation lets pass."""
    rests, shares = [], []
    for unit in body.units:
        if unit.narrow is None or unit.norm2 is None or unit.groups[0] > 1:
            continue
        beta, gamma = (_part(unit.norm1, part, tensors) for part in ("bias", "weight"))
        above = rectified_mean(beta, gamma.abs())
        weight = tensors[unit.narrow.parts["weight"]].double().flatten(1)
        mean = _part(unit.norm2, "running_mean", tensors)
        mean = mean - tensors[unit.narrow.parts["bias"]].double() if unit.narrow.bias else mean
        deviation = _part(unit.norm2, "running_var", tensors).sqrt().clamp(min=1e-12)
        rests.append((mean - weight @ above) / deviation)
        shares.append(weight @ (beta - above) / deviation)
    if not rests:
        return None
    rest, share = torch.cat(rests), torch.cat(shares)
    slope = float(rest @ share / share.square().sum().clamp(min=1e-12))
    left_over = float((rest - slope * share).abs().mean())
    return slope if slope > _PASSES and left_over < _LEFT_OVER else None


def _stem_gain(body: Body, tensors: Tensors) -> float | None:
    """Measure E3: how far the first block's means lie above those of the stem's BN and ReLU, in deviations."""
    norm = body.stem[-1].norm
    if norm is None:
        return None
    beta, gamma = (_part(norm, part, tensors) for part in ("bias", "weight"))
    mean = _part(body.units[0].norm1, "running_mean", tensors)
    lively = gamma.abs() > 1e-4
    if mean.shape != beta.shape or not lively.any():
        return None
    gains = (mean - rectified_mean(beta, gamma.abs()))[lively] / gamma.abs()[lively]
    return float(gains.mean())


def _input_mean(body: Body, tensors: Tensors) -> tuple[float, ...]:
    """Estimate E4 by least squares of BN mean = (weights summed over the kernel) · E[input] + bias.

    Good for the range of the pixels alone: means of images in 0..1 come out as 0.42 to 0.51, in 0..255 as 95 to 127.
    """
    stem = body.stem[0]
    if stem.norm is None:
        return ()
    weight = tensors[stem.conv.parts["weight"]].double().flatten(2).sum(2)
    mean = _part(stem.norm, "running_mean", tensors)
    if stem.conv.bias:
        mean = mean - tensors[stem.conv.parts["bias"]].double()
    if weight.shape[1] > weight.shape[0]:
        return ()
    solved = torch.linalg.lstsq(weight, mean[:, None]).solution[:, 0]
    return tuple(float(value) for value in solved)
