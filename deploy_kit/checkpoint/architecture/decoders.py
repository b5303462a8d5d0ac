"""Leaves → the decoder of a segmentation network around a DenseNet: every leaf in one place, in order.

FC-DenseNet is found by widths and paths alone: each block of its way up reads a transposed convolution's maps and those
of the block on its level of the way down (Jégou et al., section 3.1). The decoders of segmentation_models_pytorch are
known by its names, because nothing in the shapes says which of the encoder's maps it takes.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from deploy_kit.checkpoint.architecture import chain, dense_layers, paths
from deploy_kit.checkpoint.architecture.chain import Chain, Run, end, home_of
from deploy_kit.checkpoint.architecture.dense_layers import ChainError, DenseUnit, Joint, is_wide
from deploy_kit.checkpoint.architecture.leaves import Leaf, Leaves
from deploy_kit.checkpoint.architecture.paths import Path

_MAX_KERNEL = 4  # a transposed convolution of stride 2 and more leaves pixels that a crop could take in many ways
_MAX_STEPS, _MAX_FOUND = 20_000, 64
_NEARLY = 2  # blocks too many or too few, of a file that lacks a layer
_MIN_BLOCKS = 3  # one level: down, bottom and up
_SMP_HEAD = re.compile(r"(?:.*\.)?segmentation_head\.0")
SMP_GROUPS = 32  # of its group norms


@dataclass(frozen=True, kw_only=True)
class FoundLevel:
    """One level of a decoder.

    Attributes:
        up: Its transposed convolution; None where it resizes.
        reads_all: Whether that reads all maps of the block below, or the new ones alone.
        units: Dense layers of its block.
        convs: Its convolutions, each with the BN behind it, where it has no dense block.
    """

    up: Leaf | None = None
    reads_all: bool = False
    units: Run = ()
    convs: tuple[Joint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundPyramid:
    """A feature pyramid.

    Attributes:
        laterals: Convolutions that read the encoder's maps, from the smallest up.
        branches: Convolutions of each branch with their group norms, in the same order.
    """

    laterals: tuple[Leaf, ...]
    branches: tuple[tuple[tuple[Leaf, Leaf], ...], ...]


@dataclass(frozen=True, kw_only=True)
class FoundDecoder:
    """A decoder.

    Attributes:
        levels: Its levels from the smallest map up.
        pyramid: A feature pyramid in their place.
        head: The last convolution, which gives the classes.
        reads_all: Whether it reads all maps of the last block, or the new ones alone.
    """

    levels: tuple[FoundLevel, ...]
    head: Leaf
    reads_all: bool = True
    pyramid: FoundPyramid | None = None

    @property
    def dense(self) -> bool:
        """Whether its levels are dense blocks."""
        return bool(self.levels) and bool(self.levels[0].units)

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Its layers outside of dense layers."""
        joints = [leaf for level in self.levels for joint in level.convs for leaf in (joint.conv, joint.norm)]
        ups = [level.up for level in self.levels]
        pyramid = self.pyramid
        rows = [] if pyramid is None else [leaf for row in pyramid.branches for pair in row for leaf in pair]
        laterals = () if pyramid is None else pyramid.laterals
        return tuple(leaf for leaf in (*ups, *joints, *laterals, *rows, self.head) if leaf is not None)


@dataclass(frozen=True, kw_only=True)
class FoundPath:
    """A whole FC-DenseNet: the first convolution, the way down with its lowest block, the way up."""

    stem: Leaf
    down: Chain
    decoder: FoundDecoder

    @property
    def unlikely(self) -> tuple[int, bool, bool]:
        """How far its order is from that of its names: no ordering that the widths allow, but the ports', has least.

        Blocks of each way have the same words in their names; the numbers of the way down rise, and those of the
        transposed convolutions run as those of the blocks behind them.
        """
        down = [run[0].home for run in self.down.blocks[:-1]]
        homes = [level.units[0].home for level in self.decoder.levels]
        ups = [level.up.path for level in self.decoder.levels if level.up is not None]
        n_words = sum(len({_words(path) for path in row}) for row in (down, homes, ups))
        agrees = any(_runs(ups, down=way) and _runs(homes, down=way) for way in (False, True))
        return n_words, not _runs(down, down=False), not agrees


def find_dense_path(leaves: Leaves, dense: Sequence[DenseUnit]) -> FoundPath | None:
    """Find an FC-DenseNet.

    Args:
        leaves: The file's layers.
        dense: Its dense layers.

    Returns:
        It; None where the file holds no transposed convolution, or fewer than three dense blocks.

    Raises:
        ChainError: A layer is missing, the widths fit in no order, or in several.
    """
    used = {leaf for unit in dense for leaf in unit.leaves}
    free = [leaf for leaf in leaves.layers if leaf not in used and leaf.kind in ("conv", "up", "norm")]
    wide = [leaf for leaf in free if leaf.kind == "up" or is_wide(leaf)]
    ups = [leaf for leaf in wide if _turns(leaf)]
    if len(wide) < 2 or not ups or len(dense) < _MIN_BLOCKS:
        return None
    joints = dense_layers.joints(
        free, [leaf for leaf in free if leaf.kind == "conv" and not is_wide(leaf)], before=True
    )
    runs = sorted(chain.runs(dense, joints), key=lambda run: paths.counting(run[0].home))
    if len(runs) < _MIN_BLOCKS:
        return None
    joints += [Joint(norm=None, conv=leaf) for leaf in wide if not _turns(leaf)]
    search = _PathSearch(runs, sorted(joints, key=lambda joint: paths.counting(joint.path)))
    found: dict[object, FoundPath] = {}
    for stem in wide:
        turned = sorted((leaf for leaf in ups if leaf is not stem), key=lambda leaf: paths.counting(leaf.path))
        if stem.kind != "conv" or len(runs) != 2 * len(turned) + 1:
            continue
        for order in (turned, turned[::-1]):
            for path in itertools.islice(search.paths(stem, order), _MAX_FOUND):
                found[path.stem, path.down, path.decoder] = path
    if not found:
        # Of a DenseNet with a deep stem, whose convolutions may look transposed, blocks lie between transitions.
        n_between = sum(joint.norm is not None for joint in joints)
        n_square = sum(leaf.out == leaf.read or leaf.kind == "up" for leaf in ups)
        if len(runs) <= n_between + 1 or not n_square or abs(len(runs) - 2 * n_square - 1) > _NEARLY:
            return None
        raise ChainError(
            f"{len(runs)} dense blocks and {len(ups)} convolutions that may be transposed fit in no order as an "
            f"FC-DenseNet, whose blocks on the way up, e.g. '{home_of(runs[-1])}', read the enlarged maps and those of "
            "the way down"
        )
    least = min(path.unlikely for path in found.values())
    chosen = [path for path in found.values() if path.unlikely == least]
    if len(chosen) > 1:
        names = ", ".join(leaf.name for leaf in ups)
        raise ChainError(f"the way up fits in several orders, and its names have no numbers that choose: {names}")
    return chosen[0]


def find_smp(leaves: Leaves) -> tuple[tuple[Leaf, ...], FoundDecoder] | None:
    """Find the decoder of a Unet or an FPN of segmentation_models_pytorch by its names.

    Args:
        leaves: The file's layers.

    Returns:
        The encoder's leaves and the decoder; None where names or widths are others.
    """
    heads = [leaf for leaf in leaves.layers if _SMP_HEAD.fullmatch(leaf.name)]
    if len(heads) != 1 or heads[0].kind != "conv":
        return None
    root = heads[0].name.removesuffix("segmentation_head.0")
    around = [leaf for leaf in leaves.layers if leaf.name.startswith(f"{root}encoder.")]
    encoder = tuple(leaf for leaf in around if leaf.name.startswith(f"{root}encoder.features."))
    home = f"{root}decoder."
    inside = {leaf.name.removeprefix(home): leaf for leaf in leaves.layers if leaf.name.startswith(home)}
    # Of `tu-` encoders, which are timm's, other maps are taken; their modules have other names.
    if not encoder or len(encoder) < len(around):
        return None
    found = _smp_unet(inside, heads[0]) or _smp_pyramid(inside, leaves, home, heads[0])
    return None if found is None else (encoder, found)


def _smp_unet(inside: Mapping[str, Leaf], head: Leaf) -> FoundDecoder | None:
    """Read a Unet: two convolutions a level, each with its BN or a bias."""
    n_levels = sum(name.endswith(".conv1.0") for name in inside)
    row = [
        Joint(norm=inside.get(f"blocks.{at}.conv{part}.1"), conv=inside[f"blocks.{at}.conv{part}.0"])
        for at, part in itertools.product(range(n_levels), (1, 2))
        if f"blocks.{at}.conv{part}.0" in inside
    ]
    used = {leaf for joint in row for leaf in (joint.norm, joint.conv)} - {None}
    pairs = list(zip(row[::2], row[1::2], strict=False))
    fits = bool(pairs) and len(row) == 2 * n_levels and used == set(inside.values()) and head.read == row[-1].out
    fits &= all(joint.conv.kind == "conv" for joint in row)
    fits &= all(joint.norm is None or (joint.norm.kind, joint.norm.out) == ("norm", joint.out) for joint in row)
    if not fits or any(a.out != b.conv.read for a, b in pairs):
        return None
    return FoundDecoder(levels=tuple(FoundLevel(convs=pair) for pair in pairs), head=head)


def _smp_pyramid(inside: Mapping[str, Leaf], leaves: Leaves, home: str, head: Leaf) -> FoundDecoder | None:
    """Read an FPN: laterals of 1×1, and branches of 3×3 convolutions with group norms."""
    lateral = [inside.get(name) for name in ("p5", "p4.skip_conv", "p3.skip_conv", "p2.skip_conv")]
    names = [[f"seg_blocks.{at}.block.{step}.block" for step in range(max(3 - at, 1))] for at in range(len(lateral))]
    branches: list[tuple[tuple[Leaf, Leaf], ...]] = []
    norms: list[str] = []
    for row in names:
        steps = []
        for name in row:
            parts = {part: f"{home}{name}.1.{part}" for part in ("weight", "bias")}
            conv = inside.get(f"{name}.0")
            if conv is None or not all(
                one in leaves.others and tuple(leaves.tensors[one].shape) == (conv.out,) for one in parts.values()
            ):
                return None
            group = Leaf(path=tuple(f"{home}{name}.1".split(".")), kind="group", shape=(conv.out,), parts=parts)
            norms += parts.values()
            steps.append((conv, group))
        branches.append(tuple(steps))
    known = [leaf for leaf in lateral if leaf is not None]
    convs = [conv for row in branches for conv, _ in row]
    channels, branch = known[0].out if known else 0, convs[0].out
    fits = len(known) == len(lateral) and {*known, *convs} == set(inside.values())
    fits &= all(leaf.kind == "conv" and leaf.bias and leaf.out == channels and max(leaf.kernel) == 1 for leaf in known)
    fits &= all(conv.read == (branch if at else channels) for row in branches for at, (conv, _) in enumerate(row))
    fits &= all(conv.out == branch and not conv.bias for conv in convs) and branch % SMP_GROUPS == 0
    fits &= {name for name in leaves.others if name.startswith(home)} == set(norms)
    if not fits or head.read not in (branch, len(branches) * branch):
        return None
    return FoundDecoder(levels=(), head=head, pyramid=FoundPyramid(laterals=tuple(known), branches=tuple(branches)))


def n_blocks_read(down: Chain, stem: int, width: int, decoder: FoundDecoder) -> int | None:
    """Return how many blocks of an encoder a decoder of segmentation_models_pytorch reads.

    That of a shallower encoder starts at a transition's map.

    Args:
        down: Blocks and transitions of the whole encoder.
        stem: Channels of its stem.
        width: Channels of its last map.
        decoder: The decoder.

    Returns:
        Number of blocks; None where the widths do not fit.
    """
    ends = [stem, *(end(run) for run in down.blocks[:-1]), width]
    if decoder.pyramid is not None:
        reads = [leaf.read for leaf in decoder.pyramid.laterals]
        fitting = (n for n in range(len(down.blocks), len(reads) - 2, -1) if ends[n::-1][: len(reads)] == reads)
        return next(fitting, None)
    n_blocks = len(decoder.levels) - 1
    if not 1 <= n_blocks <= len(down.blocks):
        return None
    ends = ends[: n_blocks + 1]
    skips = [*ends[-2::-1], 0]
    below = [ends[-1], *(level.convs[-1].out for level in decoder.levels)]
    fits = all(
        level.convs[0].conv.read == read + skip for level, read, skip in zip(decoder.levels, below, skips, strict=False)
    )
    return n_blocks if fits else None


def _words(path: Path) -> Path:
    return tuple(word for word in paths.words(path) if not word.isdigit())


def _runs(row: Sequence[Path], *, down: bool) -> bool:
    """Return whether the numbers of paths rise, or fall, from each to the next."""
    numbers = [paths.numbers(path) for path in row]
    return all(a > b if down else a < b for a, b in itertools.pairwise(numbers))


def turned(leaf: Leaf) -> tuple[int, int]:
    """Return (input, output) channels of a leaf as a transposed convolution, whose weight is (in, out, …)."""
    return (leaf.read, leaf.out) if leaf.kind == "up" else (leaf.out, leaf.read)


def _turns(leaf: Leaf) -> bool:
    """Return whether a wide convolution can be a transposed one: where it has a bias, that is as long as its output."""
    if leaf.kind == "up":
        return max(leaf.kernel) <= _MAX_KERNEL
    return (leaf.out == leaf.read or not leaf.bias) and 2 <= min(leaf.kernel) <= max(leaf.kernel) <= _MAX_KERNEL


class _PathSearch:
    """Search of the order in which blocks, transitions and transposed convolutions read each other."""

    def __init__(self, runs: Sequence[Run], joints: Sequence[Joint]) -> None:
        self.runs, self.joints, self.steps = tuple(runs), tuple(joints), itertools.count()

    def paths(self, stem: Leaf, ups: Sequence[Leaf]) -> Iterator[FoundPath]:
        """Yield each network that takes the transposed convolutions in this order."""
        free = tuple(joint for joint in self.joints if joint.conv is not stem)
        for down, rest, joints in self._down(stem.out, self.runs, free, len(ups)):
            skips = [end(run) for run in down.blocks[:-1]]
            for levels in self._up(down.blocks[-1], skips, ups, rest):
                last = levels[-1].units
                widths = {end(last): True, end(last) - last[0].read: False}
                for head in (joint.conv for joint in joints if joint.norm is None and joint.conv.read in widths):
                    decoder = FoundDecoder(levels=levels, head=head, reads_all=widths[head.read])
                    yield FoundPath(stem=stem, down=down, decoder=decoder)

    def _down(
        self, width: int, runs: tuple[Run, ...], joints: tuple[Joint, ...], depth: int
    ) -> Iterator[tuple[Chain, tuple[Run, ...], tuple[Joint, ...]]]:
        """Yield each way down over `depth` transitions, with the blocks and convolutions that it leaves."""
        for run in (run for run in runs if run[0].read == width and next(self.steps) <= _MAX_STEPS):
            rest = tuple(other for other in runs if other is not run)
            if not depth:
                yield Chain(blocks=(run,), transitions=()), rest, joints
                continue
            for joint in (joint for joint in joints if joint.read == end(run)):
                left = tuple(other for other in joints if other is not joint)
                for below, blocks, convs in self._down(joint.out, rest, left, depth - 1):
                    whole = replace(below, blocks=(run, *below.blocks), transitions=(joint, *below.transitions))
                    yield whole, blocks, convs

    def _up(
        self, below: Run, skips: Sequence[int], ups: Sequence[Leaf], runs: tuple[Run, ...]
    ) -> Iterator[tuple[FoundLevel, ...]]:
        """Yield each way up: a level reads all maps of the block below or its new ones, and those of the way down."""
        if not ups:
            yield ()
            return
        read, out = turned(ups[0])
        if read not in (end(below), end(below) - below[0].read):
            return
        for run in (run for run in runs if run[0].read == out + skips[-1] and next(self.steps) <= _MAX_STEPS):
            level = FoundLevel(up=ups[0], reads_all=read == end(below), units=run)
            rest = tuple(other for other in runs if other is not run)
            for above in self._up(run, skips[:-1], ups[1:], rest):
                yield (level, *above)
