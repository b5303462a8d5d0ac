"""Leaves → the body of a DenseNet: stem, blocks, transitions and last BN, every leaf in one place. No names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import chain, dense_layers, paths
from deploy_kit.checkpoint.architecture.chain import Chain
from deploy_kit.checkpoint.architecture.dense_layers import ChainError, DenseUnit, Joint
from deploy_kit.checkpoint.architecture.leaves import Leaf, Leaves, listed
from deploy_kit.checkpoint.architecture.lookalikes import why_no_densenet

_MIN_UNITS = 2


@dataclass(frozen=True, kw_only=True)
class Body:
    """The network without its head.

    Attributes:
        stem: Convolutions before the first block, each with the BN behind it.
        chain: Blocks and transitions.
        final: The last BN; None where there is none.
        rest: Leaves that are not of the body: the head's, or too many.
    """

    stem: tuple[Joint, ...]
    chain: Chain
    final: Leaf | None
    rest: tuple[Leaf, ...]

    @property
    def units(self) -> tuple[DenseUnit, ...]:
        """All dense layers in order."""
        return tuple(unit for block in self.chain.blocks for unit in block)


def find_body(leaves: Leaves, where: str) -> Body:
    """Find the body.

    Raises:
        CheckpointError: No DenseNet, or one that lacks a layer; the message says where the widths break.
    """
    failures: list[tuple[int, str]] = []
    for bottleneck in (True, False):
        dense: Sequence[DenseUnit] = ()
        try:
            dense = dense_layers.dense_units(leaves.found, bottleneck=bottleneck)
            if len(dense) >= (1 if bottleneck else _MIN_UNITS):
                return _assembled(leaves, dense)
        except ChainError as error:
            failures.append((len(dense), str(error)))
    raise _refusal(leaves, failures, where)


def _refusal(leaves: Leaves, failures: Sequence[tuple[int, str]], where: str) -> CheckpointError:
    names = [name for leaf in leaves.found for name in leaf.parts.values()] + list(leaves.others)
    why = why_no_densenet(names)
    if not failures:
        n = sum(leaf.kind == "norm" for leaf in leaves.found)
        text = f"expected dense layers (BN, ReLU, convolution), found {n} BNs and none that a 3×3 convolution follows"
    else:
        text = max(failures, key=lambda failure: failure[0])[1]
    hint = "give a DenseNet; `deploykit inspect` also reads ONNX files of any network"
    if why:
        return CheckpointError(f"{where}: {why} ({text})", hint=hint)
    start = "" if failures else "not a DenseNet: "
    return CheckpointError(f"{where}: {start}{text}", hint=hint if not failures else "get the whole checkpoint")


def _assembled(leaves: Leaves, dense: Sequence[DenseUnit]) -> Body:
    used = {leaf for unit in dense for leaf in unit.leaves}
    free = [leaf for leaf in leaves.found if leaf not in used]
    convs = [leaf for leaf in free if leaf.kind == "conv"]
    first: ChainError | None = None
    for stem in _stems(convs, {unit.read for unit in dense}):
        between = [conv for conv in convs if conv not in stem]
        transitions, closing = _transitions(free, between, dense)
        try:
            found = chain.arrange(dense, transitions, stem[-1].out)
        except ChainError as error:
            first = first or error
            continue
        if _is_head(found, leaves):
            found = replace(found, transitions=found.transitions[:-1])
        return _closed(found, stem, closing, free)
    if first is not None:
        raise first
    widths = ", ".join(sorted({str(unit.read) for unit in dense}))
    raise ChainError(f"no convolution before the first block gives what its layers read ({widths} channels)")


def _is_head(found: Chain, leaves: Leaves) -> bool:
    """Say whether the 1×1 convolution behind the last block is the head: named otherwise, and no linear layer there."""
    if len(found.transitions) < len(found.blocks) or any(leaf.kind == "linear" for leaf in leaves.found):
        return False
    *others, last = ([word for word in paths.words(joint.path) if not word.isdigit()] for joint in found.transitions)
    return last not in others and not dense_layers.is_wide(found.transitions[-1].conv)


def _stems(convs: Sequence[Leaf], wanted: set[int]) -> Iterator[tuple[Leaf, ...]]:
    """List the rows of wide convolutions that could be the stem, the longest first: each reads what the last gave."""
    wide = sorted((conv for conv in convs if dense_layers.is_wide(conv)), key=lambda conv: paths.counting(conv.path))
    rows: list[tuple[Leaf, ...]] = []

    def grow(row: tuple[Leaf, ...]) -> None:
        if row[-1].out in wanted:
            rows.append(row)
        for conv in wide:
            if conv not in row and conv.read == row[-1].out:
                grow((*row, conv))

    for conv in wide:
        grow((conv,))
    in_order = {conv: at for at, conv in enumerate(wide)}
    rows.sort(key=lambda row: (-len(row), [in_order[conv] for conv in row]))
    longest = [row for row in rows if set(row) == set(rows[0])]
    if len(longest) > 1 and len({paths.numbers(conv.path) for conv in wide}) < len(wide):
        names = ", ".join(conv.name for conv in longest[0])
        raise ChainError(f"the stem fits in several orders, and its names have no numbers that choose: {names}")
    yield from rows


def _transitions(
    free: Sequence[Leaf], between: Sequence[Leaf], dense: Sequence[DenseUnit]
) -> tuple[list[Joint], list[Leaf]]:
    """Give the transitions with their BNs, and the convolutions that rather are a head (1×1, no BN before them)."""
    joints = dense_layers.joints(free, between, before=True)
    bare = [joint for joint in joints if joint.norm is None]
    if len(bare) == len(joints):
        return joints, []
    with_norm = [joint for joint in joints if joint.norm is not None]
    if any(dense_layers.is_wide(joint.conv) for joint in bare) or len(bare) > len(with_norm):
        return [Joint(norm=None, conv=joint.conv) for joint in joints], []
    return with_norm, [joint.conv for joint in bare]


def _closed(found: Chain, stem: Sequence[Leaf], closing: Sequence[Leaf], free: Sequence[Leaf]) -> Body:
    """Give the stem its BNs and the end its own, from what is left."""
    used = {leaf for joint in found.transitions for leaf in (joint.norm, joint.conv) if leaf is not None}
    left = [leaf for leaf in free if leaf not in used and leaf not in stem]
    joints = dense_layers.joints(left, stem, before=False)
    final = _final(left, found, {joint.norm for joint in joints})
    if final is None and any(joint.norm is not None and joint.norm.out == found.width for joint in joints):
        final = next(joint.norm for joint in joints if joint.norm is not None and joint.norm.out == found.width)
        if not _beside(final, stem):  # a bare stem as wide as the last map: the BN is the last one
            joints = [replace(joint, norm=None) if joint.norm is final else joint for joint in joints]
        else:
            final = None
    taken = {final, *(joint.norm for joint in joints)}
    rest = [leaf for leaf in left if leaf not in taken]
    if final is None:
        _refuse_other_width(rest, found)
    return Body(stem=tuple(joints), chain=found, final=final, rest=(*rest,))


def _beside(norm: Leaf, stem: Sequence[Leaf]) -> bool:
    """Whether a BN stands in the stem's own module."""
    return any(len(conv.path) > 1 and paths.kinship(norm.path, conv.path) == len(conv.path) - 1 for conv in stem)


def _final(left: Sequence[Leaf], found: Chain, stem_norms: set[Leaf | None]) -> Leaf | None:
    """Choose the last BN: as wide as the last map, and nearest to the last dense layer."""
    last = found.blocks[-1][-1].home
    fitting = [leaf for leaf in left if leaf.kind == "norm" and leaf.out == found.width and leaf not in stem_norms]
    return max(fitting, key=lambda leaf: paths.kinship(leaf.path, last), default=None)


def _refuse_other_width(rest: Sequence[Leaf], found: Chain) -> None:
    """Refuse a BN near the body that no map fits: the block before it lacks a layer."""
    last = found.blocks[-1][-1].home
    near = [leaf for leaf in rest if leaf.kind == "norm" and paths.kinship(leaf.path, last) >= len(last) - 2]
    if near:
        run = found.blocks[-1]
        layers = listed(unit.home[-1] for unit in run if unit.home)
        raise ChainError(
            f"{near[0].path[-1]} has {near[0].out} channels, blocks produce {found.width} "
            f"(the last block has {layers}: another one missing?)"
        )
