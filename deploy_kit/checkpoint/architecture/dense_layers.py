"""Leaves → dense layers, transitions and stem convolutions, by where they stand together and which widths fit.

No name is looked for. A dense layer is a wide convolution with a BN of its own input width before it, and in the
bottleneck form BN, 1×1, BN, wide (Huang et al., section 3); the convolutions that are left are transitions (1×1) and
the stem.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy_kit.checkpoint.architecture import paths
from deploy_kit.checkpoint.architecture.leaves import Leaf
from deploy_kit.checkpoint.architecture.paths import Path

_POINT = 1  # side of a kernel that reads one pixel; a longer side makes a wide convolution
_FAR = 99  # more than numbers in the names of neighbours ever differ


class ChainError(Exception):
    """Widths or names do not give exactly one network; the text says where."""


@dataclass(frozen=True, kw_only=True)
class DenseUnit:
    """One dense layer.

    Attributes:
        home: The largest module that holds no other wide convolution.
        norm1: The BN that reads the layer's input.
        narrow: The 1×1 convolution; None without a bottleneck.
        norm2: The BN behind it; None without a bottleneck, or where it was folded.
        wide: The convolution that gives the new channels.
    """

    home: Path
    norm1: Leaf
    narrow: Leaf | None
    norm2: Leaf | None
    wide: Leaf

    @property
    def read(self) -> int:
        """Input channels."""
        return self.norm1.out

    @property
    def growth(self) -> int:
        """Channels that it adds."""
        return self.wide.out

    @property
    def groups(self) -> tuple[int, int]:
        """Groups of the narrow and of the wide convolution."""
        inner = self.read if self.narrow is None else self.narrow.out
        first = 1 if self.narrow is None else self.read // self.narrow.read
        return first, inner // self.wide.read

    @property
    def grouped(self) -> bool:
        """Whether a convolution has groups."""
        return max(self.groups) > 1

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Its layers in order."""
        return tuple(leaf for leaf in (self.norm1, self.narrow, self.norm2, self.wide) if leaf is not None)

    @property
    def path(self) -> Path:
        """Path that its layers share."""
        return paths.shared(leaf.path for leaf in self.leaves)

    @property
    def name(self) -> str:
        """Its module in the file; where it has none, its last convolution."""
        home = ".".join(self.path or self.home)
        return home if home and self.wide.name.startswith(home) else self.wide.name


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A convolution between blocks (or in the stem) with the BN that belongs to it; None where there is none."""

    norm: Leaf | None
    conv: Leaf

    @property
    def read(self) -> int:
        """Input channels."""
        return self.norm.out if self.norm is not None else self.conv.read

    @property
    def out(self) -> int:
        """Output channels."""
        return self.conv.out

    @property
    def path(self) -> Path:
        """Path of its convolution."""
        return self.conv.path


def is_wide(leaf: Leaf) -> bool:
    """Return whether a leaf is a convolution that reads more than one pixel."""
    return leaf.kind == "conv" and max(leaf.kernel) > _POINT


def reads(conv: Leaf, width: int) -> bool:
    """Return whether a convolution can read `width` channels, in groups if need be."""
    groups, rest = divmod(width, conv.read)
    return rest == 0 and groups >= 1 and conv.out % groups == 0


def dense_units(leaves: Sequence[Leaf], *, bottleneck: bool) -> list[DenseUnit]:
    """Find every dense layer of one form; the forms do not mix in one network.

    Args:
        leaves: All layers of the file.
        bottleneck: Whether to look for layers with a 1×1 convolution or for those without.

    Raises:
        ChainError: A layer's BNs could change places.
    """
    wide = [leaf for leaf in leaves if is_wide(leaf)]
    # Layers that leave no choice show how this file names its roles; the others are read likewise.
    options = {leaf: _options(leaf, leaves, wide, bottleneck=bottleneck) for leaf in wide}
    certain = Counter(
        (role, _relative(leaf, unit))
        for units in options.values()
        if len(units) == 1
        for unit in units
        for role, leaf in _roles(unit)
    )
    likeliest = [_likeliest(units, certain) for units in options.values() if units]
    grouped = [unit for unit in likeliest if unit.grouped]
    # One image channel divides every width: a stem then looks like a grouped layer. Groups are the rule of a network.
    return likeliest if 2 * len(grouped) > len(likeliest) else [unit for unit in likeliest if not unit.grouped]


def joints(leaves: Iterable[Leaf], convs: Iterable[Leaf], *, before: bool) -> list[Joint]:
    """Pair each convolution with the unused BN next to it.

    Args:
        leaves: Layers, BNs among them, that belong to no dense layer.
        convs: The convolutions.
        before: Whether the BN reads the convolution's input, as in transitions, or its output, as in the stem.

    Raises:
        ChainError: Two BNs could change places.
    """
    norms = [leaf for leaf in leaves if leaf.kind == "norm"]
    convs = list(convs)
    # By their numbers, since a network of 400 layers that is no DenseNet has 10⁵ pairs.
    nearness = {
        (i, j): _nearness(conv, norm, before=before)
        for i, conv in enumerate(convs)
        for j, norm in enumerate(norms)
        if (reads(conv, norm.out) if before else norm.out == conv.out)
    }
    places = [paths.natural(conv.path) for conv in convs]
    # The nearest pairs first: a BN between two convolutions goes to the one in its own module.
    taken: dict[int, int] = {}
    used = set[int]()
    for i, j in sorted(nearness, key=lambda pair: (nearness[pair], places[pair[0]])):
        if i not in taken and j not in used:
            taken[i] = j
            used.add(j)
    for (i, j), (other, its) in itertools.combinations(taken.items(), 2):
        if (nearness.get((i, its)), nearness.get((other, j))) == (nearness[i, j], nearness[other, its]):
            raise ChainError(
                f"'{norms[j].name}' and '{norms[its].name}' fit '{convs[i].name}' and '{convs[other].name}' either way"
            )
    return [Joint(norm=norms[taken[i]] if i in taken else None, conv=conv) for i, conv in enumerate(convs)]


def _nearness(conv: Leaf, norm: Leaf, *, before: bool) -> tuple[int, int, bool]:
    """Rank a BN beside a convolution: of one module first, then near in number, then on the right side."""
    a, b = paths.numbers(norm.path), paths.numbers(conv.path)
    apart = sum(abs(x - y) for x, y in zip(a, b, strict=True)) if len(a) == len(b) else _FAR
    wrong_side = a > b if before else a < b
    return -paths.kinship(paths.words(norm.path), paths.words(conv.path)), apart, wrong_side


def _options(leaf: Leaf, leaves: Sequence[Leaf], wide: Sequence[Leaf], *, bottleneck: bool) -> list[DenseUnit]:
    """List the dense layers that a wide convolution could end; names split at underscores where paths are flat."""
    # Keras's flat names (`conv2_block1_1_bn`) carry their tree between underscores; paths are asked first.
    for split in (False, True):
        cut = paths.subparts if split else (lambda path: path)
        view = {other: cut(other.path) for other in leaves}
        home = view[leaf]
        while home and not any(other is not leaf and view[other][: len(home) - 1] == home[:-1] for other in wide):
            home = home[:-1]
        inside = [other for other in leaves if other is not leaf and view[other][: len(home)] == home]
        units = _fitting(leaf, inside, home, bottleneck=bottleneck)
        if units:
            return units
    return []


def _fitting(wide: Leaf, inside: Sequence[Leaf], home: Path, *, bottleneck: bool) -> list[DenseUnit]:
    """List the readings of a module that widths allow; grouped convolutions only where no other reading fits."""
    norms = [leaf for leaf in inside if leaf.kind == "norm"]
    if not bottleneck:
        plain = [
            DenseUnit(home=home, norm1=norm, narrow=None, norm2=None, wide=wide)
            for norm in norms
            if reads(wide, norm.out)
        ]
        return [unit for unit in plain if not unit.grouped] or plain
    units = []
    for narrow in inside:
        if narrow.kind != "conv" or is_wide(narrow) or not reads(wide, narrow.out):
            continue
        first = [norm for norm in norms if reads(narrow, norm.out)]
        second: list[Leaf | None] = [norm for norm in norms if norm.out == narrow.out]
        if narrow.bias and not any(norm not in first or len(first) > 1 for norm in second):
            second = [None]  # folded into the 1×1 convolution, where it left a bias
        units += [
            DenseUnit(home=home, norm1=a, narrow=narrow, norm2=b, wide=wide)
            for a, b in itertools.product(first, second)
            if a is not b
        ]
    return [unit for unit in units if not unit.grouped] or units


def _roles(unit: DenseUnit) -> list[tuple[str, Leaf]]:
    named = (("norm1", unit.norm1), ("narrow", unit.narrow), ("norm2", unit.norm2))
    return [(role, leaf) for role, leaf in named if leaf is not None]


def _relative(leaf: Leaf, unit: DenseUnit) -> Path:
    return leaf.path[len(unit.path) :]


def _likeliest(units: Sequence[DenseUnit], certain: Counter[tuple[str, Path]]) -> DenseUnit:
    """Choose a reading: leaves closest together, then as in layers without a choice, then in the order of numbers.

    Raises:
        ChainError: Two readings are alike in all three.
    """

    def rank(unit: DenseUnit) -> tuple[int, int, int]:
        known = sum(certain[role, _relative(leaf, unit)] for role, leaf in _roles(unit))
        order = [paths.numbers(leaf.path) for leaf in unit.leaves]
        return len(unit.path), known, sum(a < b for a, b in itertools.combinations(order, 2))

    best, *others = sorted(units, key=rank, reverse=True)
    if others and rank(others[0]) == rank(best):
        names = ", ".join(leaf.name for leaf in best.leaves)
        raise ChainError(f"a dense layer's BNs fit either way, and their names have no numbers that choose: {names}")
    return best
