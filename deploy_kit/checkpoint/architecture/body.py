"""Leaves → the body of a DenseNet: stem, blocks, transitions, last BN, decoder, every leaf in one place. No names."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import chain, decoders, dense_layers, paths
from deploy_kit.checkpoint.architecture.chain import Chain, Run
from deploy_kit.checkpoint.architecture.decoders import FoundDecoder
from deploy_kit.checkpoint.architecture.dense_layers import ChainError, DenseUnit, Joint
from deploy_kit.checkpoint.architecture.leaves import Leaf, Leaves, listed, refuse_transposed
from deploy_kit.checkpoint.architecture.lookalikes import has_decoder, why_no_densenet

EXPORT = 'torch.onnx.export(model.eval(), (torch.randn(1, 3, 224, 224),), "model.onnx", dynamo=True)'
"""The line that makes an ONNX file of any network of torch that reads RGB images."""

_MIN_UNITS = 2
_MAX_STEM, _MAX_ROWS, _MAX_TRIED = 6, 64, 5_000  # the longest stem that was seen has three convolutions
_MAX_PAIRS = (
    200_000  # of layers outside the dense ones, over all stems: a DenseNet has some dozens, a ResNet-269 90,000
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """The network without its head.

    Attributes:
        stem: Convolutions before the first block, each with the BN behind it.
        chain: Blocks and transitions in order.
        final: The last BN; None where there is none.
        rest: Leaves outside the body: the head's, or leaves that have no place.
        decoder: What makes a map of classes of it; None where a head follows.
        unread: Leaves of an encoder that its decoder does not read, where it starts at a larger map.
    """

    stem: tuple[Joint, ...]
    chain: Chain
    final: Leaf | None
    rest: tuple[Leaf, ...]
    decoder: FoundDecoder | None = None
    unread: tuple[Leaf, ...] = ()

    @property
    def blocks(self) -> tuple[Run, ...]:
        """All dense blocks in order, those of a decoder too."""
        levels = self.decoder.levels if self.decoder is not None else ()
        return (*self.chain.blocks, *(level.units for level in levels if level.units))

    @property
    def units(self) -> tuple[DenseUnit, ...]:
        """All dense layers in order, those of a decoder too."""
        return tuple(unit for block in self.blocks for unit in block)


def find_body(leaves: Leaves, where: str) -> Body:
    """Find the body.

    Args:
        leaves: The file's layers.
        where: The file, for messages.

    Raises:
        CheckpointError: No DenseNet, or one that lacks a layer; the message says where the widths break.
    """
    smp = decoders.find_smp(leaves)
    if smp is not None and (body := _with_decoder(leaves, *smp, where)) is not None:
        return body
    failures: list[tuple[int, str]] = []
    # Bottlenecks first: the BN and the wide convolution of a bottleneck layer also read as a layer without one.
    for bottleneck in (True, False):
        dense: Sequence[DenseUnit] = ()
        try:
            dense = dense_layers.dense_units(leaves.layers, bottleneck=bottleneck)
            if len(dense) >= (1 if bottleneck else _MIN_UNITS):
                body = _assembled(leaves, dense)
                refuse_transposed(leaves, where)
                return body
        except ChainError as error:
            failures.append((len(dense), str(error)))
        try:
            if (path := decoders.find_dense_path(leaves, dense)) is not None:
                return _of_path(path, leaves)
        except ChainError as error:  # what fits nearly as one says more than why it is no row of blocks
            failures.append((len(dense) + 1, str(error)))
    refuse_transposed(leaves, where)
    raise _refusal(leaves, failures, where)


def _of_path(path: decoders.FoundPath, leaves: Leaves) -> Body:
    """Return an FC-DenseNet as a body: its way down and lowest block are the blocks of a DenseNet."""
    body = Body(stem=(Joint(norm=None, conv=path.stem),), chain=path.down, final=None, rest=(), decoder=path.decoder)
    used = {leaf for unit in body.units for leaf in unit.leaves} | {path.stem, *path.decoder.leaves}
    used |= {leaf for joint in path.down.transitions for leaf in (joint.norm, joint.conv) if leaf is not None}
    return replace(body, rest=tuple(leaf for leaf in leaves.layers if leaf not in used))


def _with_decoder(leaves: Leaves, encoder: tuple[Leaf, ...], decoder: FoundDecoder, where: str) -> Body | None:
    """Return a DenseNet under a decoder of segmentation_models_pytorch; None where the widths do not fit."""
    body = find_body(replace(leaves, layers=encoder, others=()), where)
    n_blocks = decoders.n_blocks_read(body.chain, body.stem[-1].out, body.chain.width, decoder)
    if n_blocks is None or body.final is None or body.rest:
        return None
    inside = {*encoder, *decoder.leaves}
    rest = tuple(leaf for leaf in leaves.layers if leaf not in inside)
    if n_blocks == len(body.chain.blocks):
        return replace(body, decoder=decoder, rest=rest)
    kept = Chain(blocks=body.chain.blocks[:n_blocks], transitions=body.chain.transitions[: n_blocks - 1])
    final = body.chain.transitions[n_blocks - 1].norm
    cut = replace(body, chain=kept, final=final, decoder=decoder, rest=rest)
    used = {leaf for unit in cut.units for leaf in unit.leaves} | {final}
    used |= {leaf for joint in (*cut.stem, *kept.transitions) for leaf in (joint.norm, joint.conv)}
    return replace(cut, unread=tuple(leaf for leaf in encoder if leaf not in used))


def _refusal(leaves: Leaves, failures: Sequence[tuple[int, str]], where: str) -> CheckpointError:
    """Make the error of a file in which no body is found; the reading that got furthest says why."""
    names = [name for leaf in leaves.layers for name in leaf.parts.values()] + list(leaves.others)
    why = why_no_densenet(names)
    hint = "give a DenseNet; of other networks deploykit takes ONNX files: export it with its own framework"
    if has_decoder(names):
        hint = f"build the whole network with its own package, load this file, and give its ONNX file: {EXPORT}"
    if not failures:
        n = sum(leaf.kind == "norm" for leaf in leaves.layers)
        bare = [name for name in leaves.others if name.endswith(".weight") and leaves.tensors[name].dim() == 1]
        if n == 0 and len(bare) >= _MIN_UNITS and not why:
            raise CheckpointError(
                f"{where}: its norms, e.g. '{bare[0].removesuffix('.weight')}', have no running statistics: group, "
                "layer and instance norms, and BNs without them, take theirs from each input, which is not supported",
                hint=hint,
            )
        text = f"expected dense layers (BN, ReLU, convolution), found {n} BNs and none that a 3×3 convolution follows"
    else:
        text = max(failures, key=lambda failure: failure[0])[1]
    if why:
        return CheckpointError(f"{where}: {why} ({text})", hint=hint)
    # A row of siblings with a gap lacks a layer; other networks are whole, and no DenseNet.
    lacks = "missing?" in text
    start = "" if lacks else "not a DenseNet, or not a whole one: " if failures else "not a DenseNet: "
    return CheckpointError(f"{where}: {start}{text}", hint="get the whole checkpoint" if lacks else hint)


def _assembled(leaves: Leaves, dense: Sequence[DenseUnit]) -> Body:
    """Put stem, blocks, transitions and last BN together around the dense layers.

    Raises:
        ChainError: They do not fit.
    """
    used = {leaf for unit in dense for leaf in unit.leaves}
    free = [leaf for leaf in leaves.layers if leaf not in used]
    convs = [leaf for leaf in free if leaf.kind == "conv"]
    # Of several stems that fail, the longest one's error is shown: the others leave out convolutions that belong to it.
    first: ChainError | None = None
    budget = itertools.count()
    n_pairs = 0
    for stem in _stems(convs, {unit.read for unit in dense}):
        between = [conv for conv in convs if conv not in stem]
        n_pairs += len(between) * len(free)
        if first is not None and n_pairs > _MAX_PAIRS:
            break
        transitions = _transitions(free, between)
        try:
            _verify_one_kernel(transitions)
            arranged = chain.arrange(dense, transitions, stem[-1].out, budget)
        except ChainError as error:
            first = first or error
            continue
        if _is_head(arranged, leaves):
            arranged = replace(arranged, transitions=arranged.transitions[:-1])
        return _closed(arranged, stem, free)
    if first is not None:
        raise first
    widths = ", ".join(sorted({str(unit.read) for unit in dense}))
    raise ChainError(f"no convolution before the first block gives what its layers read ({widths} channels)")


def _verify_one_kernel(transitions: Sequence[Joint]) -> None:
    """Refuse transitions of several kernels before they are put in order: a decoder's convolutions fit in many orders.

    Raises:
        ChainError: Some have a kernel of 1, others a larger one.
    """
    wide = [joint.conv.name for joint in transitions if dense_layers.is_wide(joint.conv)]
    if 0 < len(wide) < len(transitions):
        raise ChainError(
            f"{len(wide)} wide convolutions, e.g. '{wide[0]}', belong neither to the stem nor to a dense layer, beside "
            f"{len(transitions) - len(wide)} with a kernel of 1"
        )


def _is_head(arranged: Chain, leaves: Leaves) -> bool:
    """Return whether the 1×1 convolution behind the last block is the head: named otherwise, and no linear layer."""
    if len(arranged.transitions) < len(arranged.blocks) or any(leaf.kind == "linear" for leaf in leaves.layers):
        return False
    *others, last = ([word for word in paths.words(joint.path) if not word.isdigit()] for joint in arranged.transitions)
    return last not in others and not dense_layers.is_wide(arranged.transitions[-1].conv)


def _stems(convs: Sequence[Leaf], widths: set[int]) -> Iterator[tuple[Leaf, ...]]:
    """Yield the rows of wide convolutions that could be the stem, the longest first: each reads what the last gave.

    Args:
        convs: Convolutions that belong to no dense layer.
        widths: Channels that the dense layers read; the last convolution gives one of them.
    """
    wide = sorted((conv for conv in convs if dense_layers.is_wide(conv)), key=lambda conv: paths.counting(conv.path))
    rows: list[tuple[Leaf, ...]] = []
    readers: dict[int, list[Leaf]] = {}
    for conv in wide:
        readers.setdefault(conv.read, []).append(conv)
    # Rows that end where a block reads: of a decoder's or an HRNet's convolutions there are more than can be listed.
    waiting: list[tuple[Leaf, ...]] = [(conv,) for conv in reversed(wide)]
    n_tried = 0
    while waiting:
        row, n_tried = waiting.pop(), n_tried + 1
        if row[-1].out in widths:
            rows.append(row)
        if len(rows) > _MAX_ROWS or n_tried > _MAX_TRIED:
            raise ChainError(f"{len(wide)} convolutions outside the dense layers fit as a stem in too many ways")
        if len(row) < _MAX_STEM:
            waiting += [(*row, conv) for conv in reversed(readers.get(row[-1].out, [])) if conv not in row]
    in_order = {conv: at for at, conv in enumerate(wide)}
    # Longest first: a shorter stem would leave convolutions over, which no transition's place fits.
    rows.sort(key=lambda row: (-len(row), [in_order[conv] for conv in row]))
    longest = [row for row in rows if set(row) == set(rows[0])]
    if len(longest) > 1 and len({paths.numbers(conv.path) for conv in wide}) < len(wide):
        names = ", ".join(conv.name for conv in longest[0])
        raise ChainError(f"the stem fits in several orders, and its names have no numbers that choose: {names}")
    yield from rows


def _transitions(free: Sequence[Leaf], between: Sequence[Leaf]) -> list[Joint]:
    """Return the transitions with their BNs.

    BNs stand in all transitions or in none. A 1×1 convolution without one among others that have one is rather a head;
    a wide one, or more than half of them, means that the BNs belong elsewhere.
    """
    joints = dense_layers.joints(free, between, before=True)
    bare = [joint for joint in joints if joint.norm is None]
    if len(bare) == len(joints):
        return joints
    with_norm = [joint for joint in joints if joint.norm is not None]
    if any(dense_layers.is_wide(joint.conv) for joint in bare) or len(bare) > len(with_norm):
        return [Joint(norm=None, conv=joint.conv) for joint in joints]
    return with_norm


def _closed(arranged: Chain, stem: Sequence[Leaf], free: Sequence[Leaf]) -> Body:
    """Assign the BNs that are left to the stem and to the end."""
    used = {leaf for joint in arranged.transitions for leaf in (joint.norm, joint.conv) if leaf is not None}
    left = [leaf for leaf in free if leaf not in used and leaf not in stem]
    joints = dense_layers.joints(left, stem, before=False)
    final = _final(left, arranged, {joint.norm for joint in joints})
    if final is None and any(joint.norm is not None and joint.norm.out == arranged.width for joint in joints):
        final = next(joint.norm for joint in joints if joint.norm is not None and joint.norm.out == arranged.width)
        if not _beside(final, stem):  # a bare stem as wide as the last map: the BN is the last one
            joints = [replace(joint, norm=None) if joint.norm is final else joint for joint in joints]
        else:
            final = None
    taken = {final, *(joint.norm for joint in joints)}
    rest = [leaf for leaf in left if leaf not in taken]
    if final is None:
        _refuse_other_width(rest, arranged)
    return Body(stem=tuple(joints), chain=arranged, final=final, rest=(*rest,))


def _beside(norm: Leaf, stem: Sequence[Leaf]) -> bool:
    """Return whether a BN stands in the stem's own module."""
    return any(len(conv.path) > 1 and paths.kinship(norm.path, conv.path) == len(conv.path) - 1 for conv in stem)


def _final(left: Sequence[Leaf], arranged: Chain, stem_norms: set[Leaf | None]) -> Leaf | None:
    """Choose the last BN: as wide as the last map, and nearest to the last dense layer."""
    last = arranged.blocks[-1][-1].home
    fitting = [leaf for leaf in left if leaf.kind == "norm" and leaf.out == arranged.width and leaf not in stem_norms]
    # fastai's head begins with another BN of that width.
    return max(fitting, key=lambda leaf: paths.kinship(leaf.path, last), default=None)


def _refuse_other_width(rest: Sequence[Leaf], arranged: Chain) -> None:
    """Refuse a BN near the body that no map fits: the block before it lacks a layer."""
    last = arranged.blocks[-1][-1].home
    near = [leaf for leaf in rest if leaf.kind == "norm" and paths.kinship(leaf.path, last) >= len(last) - 2]
    if near:
        run = arranged.blocks[-1]
        layers = listed(unit.home[-1] for unit in run if unit.home)
        raise ChainError(
            f"{near[0].path[-1]} has {near[0].out} channels, blocks produce {arranged.width} "
            f"(the last block has {layers}: another one missing?)"
        )
