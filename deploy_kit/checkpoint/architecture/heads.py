"""Layers behind the body → heads: which linear layers follow each other, which stand side by side."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import paths
from deploy_kit.checkpoint.architecture.leaves import Leaf, listed
from deploy_kit.checkpoint.architecture.lookalikes import why_no_densenet
from deploy_kit.checkpoint.architecture.paths import Path
from deploy_kit.records.densenet import Head, HeadLayer, HeadPool, Order

NONE = "none"
DOUBLE_POOLS: tuple[HeadPool, ...] = ("max_avg", "avg_max")  # both poolings side by side
_LINEARS = ("linear", "conv")  # a 1×1 convolution on a pooled map is a linear layer


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a head and the leaf that carries its weights; None for an activation."""

    layer: HeadLayer
    leaf: Leaf | None


@dataclass(frozen=True, kw_only=True)
class FoundHeads:
    """Heads with their weights.

    Attributes:
        pool: ``flatten`` where their width shows it; None where it does not tell how the last map is pooled.
        double: Whether they read twice the map's channels: both poolings side by side, in either order.
        hidden_order: Where an index gap shows whether the BNs between linear layers come before the activations.
        map_side: Side of the last map in px, where it is flattened.
        trunk: Steps that all heads share.
        heads: (name, steps) of each head.
        dropped: Leaves of heads that were not chosen.
        outside: Whether a head stands outside the body's own module.
        is_map: Whether it is the last convolution of a decoder, whose output is a map.
    """

    pool: HeadPool | None
    double: bool = False
    hidden_order: Order | None = None
    map_side: int | None
    trunk: tuple[Step, ...]
    heads: tuple[tuple[str, tuple[Step, ...]], ...]
    dropped: tuple[Leaf, ...]
    outside: bool
    is_map: bool = False

    @property
    def records(self) -> tuple[Head, ...]:
        """The heads without their weights."""
        return tuple(Head(name=name, layers=tuple(step.layer for step in steps)) for name, steps in self.heads)


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A linear layer with the steps before it, back to the linear layer that it reads."""

    steps: tuple[Step, ...]
    leaf: Leaf


def find_heads(rest: Sequence[Leaf], width: int, ndim: int, body: Path, chosen: str | None, where: str) -> FoundHeads:
    """Find the heads behind a map of `width` channels.

    Args:
        rest: Leaves outside the body.
        width: Channels of the last map.
        ndim: Number of axes of the image.
        body: Module that holds all dense layers.
        chosen: Module of the head to take, ``none`` for the features themselves; None where none was chosen.
        where: The file, for messages.

    Raises:
        CheckpointError: No head, several that may not belong together, or a linear layer that nothing feeds.
    """
    linears = sorted((leaf for leaf in rest if leaf.kind in _LINEARS), key=lambda leaf: paths.counting(leaf.path))
    norms = [leaf for leaf in rest if leaf.kind == "norm"]
    if chosen == NONE:
        return FoundHeads(pool=None, map_side=None, trunk=(), heads=(), dropped=(*linears, *norms), outside=False)
    if not linears:
        raise CheckpointError(
            f"{where}: no classifier behind the {width} channels of the last map",
            hint="export the pooled features with --head none, or give a checkpoint with its classifier",
        )
    dropped: tuple[Leaf, ...] = ()
    if chosen is not None:
        linears, norms, dropped = _chosen(linears, norms, chosen, where)
    before = {leaf: _feeder(leaf, linears, width) for leaf in linears}
    roots = [leaf for leaf in linears if before[leaf] is None]
    pools = {leaf: _pool(leaf.read, width, ndim) for leaf in roots}
    # Where the last block lacks a layer and no BN ends it, the head's width is what shows it.
    lost = [leaf for leaf in roots if pools[leaf] is None]
    if lost:
        why = why_no_densenet(leaf.parts["weight"] for leaf in lost)
        raise CheckpointError(
            f"{where}: '{lost[0].parts['weight']}' reads {lost[0].read} channels, the last map has {width}"
            + (f": {why}" if why else ""),
            hint="the file lacks a layer, or a linear layer is no head: --head NAME takes one head, --ignore NAME "
            "leaves tensors out",
        )
    nodes = _nodes(linears, before, norms)
    trunk, rows = _rows(nodes, before)
    _verify_one_home(rows, where)
    pool, side = next(pooled for leaf in roots if (pooled := pools[leaf]))
    gaps = {_gap_order(before[leaf], nodes[leaf]) for leaf in linears if before[leaf] is not None}
    heads = tuple(
        (name, tuple(step for node in row for step in node.steps)) for name, row in zip(_names(rows), rows, strict=True)
    )
    shared = tuple(step for node in trunk for step in node.steps)
    # In most families the head stands beside `features`; one that stands further out was added by a user.
    homes = [row[-1].leaf.path[:-1] for row in rows]
    return FoundHeads(
        pool=None if pool in DOUBLE_POOLS else pool,
        double=pool in DOUBLE_POOLS,
        hidden_order=gaps.pop() if len(gaps) == 1 else None,
        map_side=side,
        trunk=shared,
        heads=heads,
        dropped=dropped,
        outside=any(paths.kinship(home, body) < len(body) - 1 for home in homes),
    )


def of_decoder(last: Leaf, chosen: str | None, where: str) -> FoundHeads:
    """Return the last convolution of a decoder as the head, of which there is one.

    Raises:
        CheckpointError: Another one was chosen.
    """
    if chosen not in (None, last.name):
        raise CheckpointError(f"{where}: no head is called '{chosen}'", hint=f"known: {last.name}")
    step = Step(layer=HeadLayer(kind="linear", channels=last.out, bias=last.bias), leaf=last)
    return FoundHeads(
        pool=None, map_side=None, trunk=(), heads=(("logits", (step,)),), dropped=(), outside=False, is_map=True
    )


def _chosen(
    linears: Sequence[Leaf], norms: Sequence[Leaf], name: str, where: str
) -> tuple[list[Leaf], list[Leaf], tuple[Leaf, ...]]:
    """Return the linear layers and BNs under the module that was named, and the others."""

    def under(leaf: Leaf) -> bool:
        return f"{leaf.name}.".startswith(f"{name}.")

    kept = [leaf for leaf in linears if under(leaf)]
    if not kept:
        raise CheckpointError(
            f"{where}: no head is called '{name}'", hint="known: " + listed(leaf.name for leaf in linears)
        )
    others = tuple(leaf for leaf in (*linears, *norms) if not under(leaf))
    return kept, [norm for norm in norms if under(norm)], others


def _feeder(leaf: Leaf, linears: Sequence[Leaf], width: int) -> Leaf | None:
    """Return the linear layer whose output this one reads; None where it reads the map.

    A head's width may be that of the map: the numbers in the names then tell, for later layers count higher.
    """
    near = [
        other
        for other in linears
        if other is not leaf and other.out == leaf.read and paths.counting(other.path) < paths.counting(leaf.path)
    ]
    best = max(near, key=lambda other: (paths.kinship(other.path, leaf.path), paths.counting(other.path)), default=None)
    if best is None and leaf.read != width:  # names that do not count: any that fits alone
        alone = [other for other in linears if other is not leaf and other.out == leaf.read]
        best = alone[0] if len(alone) == 1 else None
    return best


def _pool(read: int, width: int, ndim: int) -> tuple[HeadPool | None, int | None] | None:
    """Return (pool, side of a flattened map) that a linear layer's width tells; None where no pool fits it."""
    times, left = divmod(read, width)
    if left or not times:
        return None
    side = round(times ** (1 / ndim))
    if times == 1:
        return None, None
    if times == 2:  # in 1-D a flattened map of two pixels has that width too, and is the rarer one
        return "max_avg", None
    return ("flatten", side) if side**ndim == times else None


def _nodes(linears: Sequence[Leaf], before: dict[Leaf, Leaf | None], norms: Sequence[Leaf]) -> dict[Leaf, _Node]:
    """Pair each linear layer with the BN before it: of the width that it reads, and nearest by name."""
    free = list(norms)
    nodes: dict[Leaf, _Node] = {}
    for leaf in linears:
        feeder = before[leaf]
        near = [leaf.path] + ([feeder.path] if feeder else [])
        fitting = [norm for norm in free if norm.out == leaf.read]
        norm = max(fitting, key=lambda norm: sum(paths.kinship(norm.path, path) for path in near), default=None)
        if norm is not None:
            free.remove(norm)
        nodes[leaf] = _Node(steps=_between(feeder, norm, leaf), leaf=leaf)
    return nodes


def _between(feeder: Leaf | None, norm: Leaf | None, leaf: Leaf) -> tuple[Step, ...]:
    """Put the activation where an index gap shows one; else behind the BN; none before the first linear layer."""
    linear = Step(layer=HeadLayer(kind="linear", channels=leaf.out, bias=leaf.bias), leaf=leaf)
    middle = [Step(layer=HeadLayer(kind="norm", channels=norm.out), leaf=norm)] if norm is not None else []
    if feeder is None:
        return (*middle, linear)
    active = Step(layer=HeadLayer(kind="activation"), leaf=None)
    gap = paths.gap(feeder.path, (norm or leaf).path)
    if gap == 0 and norm is None:
        return (linear,)
    return (*middle, active, linear)


def _gap_order(feeder: Leaf | None, node: _Node) -> Order | None:
    """Return the order that an index gap shows: BN 1 behind linear 0 comes first, BN 2 behind what stands between."""
    norm = next((step.leaf for step in node.steps if step.layer.kind == "norm"), None)
    if feeder is None or norm is None or (gap := paths.gap(feeder.path, norm.path)) is None:
        return None
    return "activation_first" if gap else "norm_first"


def reordered(heads: FoundHeads) -> FoundHeads:
    """Return heads in which the BNs between linear layers stand behind their activations."""
    return replace(
        heads, trunk=_swapped(heads.trunk), heads=tuple((name, _swapped(steps)) for name, steps in heads.heads)
    )


def _swapped(steps: Sequence[Step]) -> tuple[Step, ...]:
    row = list(steps)
    for at in range(len(row) - 1):
        if (row[at].layer.kind, row[at + 1].layer.kind) == ("norm", "activation"):
            row[at], row[at + 1] = row[at + 1], row[at]
    return tuple(row)


def _rows(nodes: dict[Leaf, _Node], before: dict[Leaf, Leaf | None]) -> tuple[list[_Node], list[list[_Node]]]:
    """Follow each last layer back to the map; return what all rows share, the trunk, and the rest of each."""
    fed = set(before.values())
    rows = []
    for leaf in nodes:
        if leaf in fed:
            continue
        row, at = [nodes[leaf]], before[leaf]
        while at is not None:
            row.insert(0, nodes[at])
            at = before[at]
        rows.append(row)
    trunk: list[_Node] = []
    while len(rows) > 1 and all(len(row) > 1 and row[0] is rows[0][0] for row in rows):
        trunk.append(rows[0][0])
        rows = [row[1:] for row in rows]
    return trunk, rows


def _names(rows: Sequence[Sequence[_Node]]) -> list[str]:
    """Name outputs by the parts of their paths that differ; a single one is ``logits``."""
    if len(rows) == 1:
        return ["logits"]
    homes = [paths.shared(node.leaf.path for node in row) for row in rows]
    common = len(paths.shared(homes))
    # They name the outputs of the ONNX file.
    return [re.sub(r"\W", "_", "_".join(home[common:]) or f"head{at}") for at, home in enumerate(homes)]


def _verify_one_home(rows: Sequence[Sequence[_Node]], where: str) -> None:
    """Refuse heads that stand in different modules: one of them may be left from another task.

    Re-identification networks wrap torchvision's class, keep its ImageNet classifier and put their own behind features.
    """
    homes = [paths.shared(node.leaf.path for node in row) for row in rows]
    parents = {home[:-1] for home in homes}
    if len(parents) > 1:
        names = [".".join(home) for home in homes]
        ends = [(row[0].leaf.read, row[-1].leaf.out) for row in rows]
        chained = [(a, b) for a, b in itertools.permutations(range(len(rows)), 2) if ends[a][1] == ends[b][0]]
        if chained:
            before, after = (names[at] for at in chained[0])
            raise CheckpointError(
                f"{where}: nothing says whether '{before}' stands before '{after}' or takes no part in its answer",
                hint=f"if it takes no part: --ignore {before}; if it stands before, export the model to ONNX with its "
                "own framework, and give that file",
            )
        raise CheckpointError(
            f"{where}: {len(rows)} heads in different modules, one may be left from another task: {listed(names)}",
            hint=f"choose one: --head {names[-1]}; a head outside the network's own module may skip the last ReLU: say "
            "--final-relu or --no-final-relu too",
        )
