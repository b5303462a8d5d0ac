"""Leaves → the decoder of a segmentation network around a DenseNet: every leaf in one place, in order.

FC-DenseNet is found by widths and paths alone: each block of its way up reads a transposed convolution's maps and those
of the block on its level of the way down (Jégou et al., section 3.1). The decoders of segmentation_models_pytorch are
known by its names, because nothing in the shapes says which of the encoder's maps it takes.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deploy_kit.checkpoint.architecture import chain, dense_layers, paths
from deploy_kit.checkpoint.architecture.chain import Chain, Run, end, home_of
from deploy_kit.checkpoint.architecture.dense_layers import ChainError, DenseUnit, Joint, is_wide
from deploy_kit.checkpoint.architecture.leaves import Leaf, Leaves
from deploy_kit.checkpoint.architecture.paths import Path

_MAX_KERNEL = 4  # a transposed convolution of stride 2 and more leaves pixels that a crop could take in many ways
_MAX_STEPS, _MAX_FOUND = 20_000, 64
_MIN_BLOCKS = 3  # one level: down, bottom and up
_SMP_CONV = re.compile(r"((?:.*\.)?)decoder\.blocks\.(\d+)\.conv([12])\.[01]")


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
class FoundDecoder:
    """A decoder.

    Attributes:
        levels: Its levels from the smallest map up.
        head: The last convolution, which gives the classes.
        reads_all: Whether it reads all maps of the last block, or the new ones alone.
    """

    levels: tuple[FoundLevel, ...]
    head: Leaf
    reads_all: bool = True

    @property
    def dense(self) -> bool:
        """Whether its levels are dense blocks."""
        return bool(self.levels[0].units)

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Its layers outside of dense layers."""
        joints = [leaf for level in self.levels for joint in level.convs for leaf in (joint.conv, joint.norm)]
        ups = [level.up for level in self.levels]
        return tuple(leaf for leaf in (*ups, *joints, self.head) if leaf is not None)


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
        if len(runs) <= n_between + 1 or all(leaf.out != leaf.read and leaf.kind != "up" for leaf in ups):
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


def find_smp_unet(leaves: Leaves) -> tuple[tuple[Leaf, ...], FoundDecoder] | None:
    """Find the Unet decoder of segmentation_models_pytorch by its names.

    Args:
        leaves: The file's layers.

    Returns:
        The encoder's leaves and the decoder; None where names or widths are others.
    """
    matches = [(leaf, match) for leaf in leaves.layers if (match := _SMP_CONV.fullmatch(leaf.name))]
    root = matches[0][1][1] if matches else ""
    heads = [leaf for leaf in leaves.layers if leaf.name == f"{root}segmentation_head.0"]
    inside = [leaf for leaf in leaves.layers if leaf.name.startswith(f"{root}decoder.")]
    encoder = tuple(leaf for leaf in leaves.layers if leaf.name.startswith(f"{root}encoder.features."))
    # Of `tu-` encoders, which are timm's, other maps are taken; their modules have other names.
    apart = any(leaf.name.startswith(f"{root}encoder.") for leaf in leaves.layers if leaf not in encoder)
    convs = {(int(match[2]), int(match[3])): leaf for leaf, match in matches if leaf.kind == "conv"}
    n_levels = len(convs) // 2
    order = list(itertools.product(range(n_levels), (1, 2)))
    if apart or not encoder or len(heads) != 1 or len(inside) != len(matches) or not n_levels or sorted(convs) != order:
        return None
    behind = {leaf.path[:-1]: leaf for leaf, _ in matches if leaf.kind == "norm"}
    row = [Joint(norm=behind.get(convs[at].path[:-1]), conv=convs[at]) for at in order]
    fits = all(joint.norm is None or joint.norm.out == joint.out for joint in row)
    fits &= all(a.out == b.conv.read for a, b in zip(row[::2], row[1::2], strict=True))
    if not fits or heads[0].read != row[-1].out or len(heads[0].shape) != 4:
        return None
    levels = tuple(FoundLevel(convs=(a, b)) for a, b in zip(row[::2], row[1::2], strict=True))
    return encoder, FoundDecoder(levels=levels, head=heads[0])


def cut_for_unet(down: Chain, stem: int, width: int, decoder: FoundDecoder) -> int | None:
    """Return how many blocks of an encoder a Unet decoder reads: a shallower one starts at a transition's map.

    Args:
        down: Blocks and transitions of the whole encoder.
        stem: Channels of its stem.
        width: Channels of its last map.
        decoder: The decoder.

    Returns:
        Number of blocks; None where the widths do not fit.
    """
    n_blocks = len(decoder.levels) - 1
    if not 1 <= n_blocks <= len(down.blocks):
        return None
    ends = [stem, *(end(run) for run in down.blocks[:-1]), width][: n_blocks + 1]
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
