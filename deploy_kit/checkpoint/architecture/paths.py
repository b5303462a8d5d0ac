"""Module paths as evidence: which belong together, and in which order they count. No name has a meaning here."""

import functools
import re
from collections.abc import Iterable, Sequence

Path = tuple[str, ...]
_WORDS = re.compile(r"\d+|[^\d_.]+")


@functools.lru_cache(maxsize=1 << 16)
def words(path: Path) -> Path:
    """Split each part at underscores and between letters and digits: ``conv2_block1`` is conv, 2, block, 1."""
    return tuple(word for part in path for word in _WORDS.findall(part))


def subparts(path: Path) -> Path:
    """Split each part at underscores: flat names such as ``conv2_block1_1_bn`` carry their tree there."""
    return tuple(word for part in path for word in part.split("_") if word)


@functools.lru_cache(maxsize=1 << 16)
def numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers of a path in order, without the words between them."""
    return tuple(int(word) for word in words(path) if word.isdigit())


@functools.lru_cache(maxsize=1 << 16)
def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key in which 2 comes before 10."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word.lower()) for word in words(path))


def counting(path: Path) -> tuple[tuple[int, ...], tuple[tuple[int, int, str], ...]]:
    """Return a sort key by numbers first: ``dense_block3`` comes after ``dense_block_layer_2``."""
    return numbers(path), natural(path)


def shared(paths: Iterable[Path]) -> Path:
    """Return the longest path that all begin with."""
    kept: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        kept.append(parts[0])
    return tuple(kept)


def kinship(a: Path, b: Path) -> int:
    """Count the leading parts that two paths share."""
    return len(shared((a, b)))


def gap(earlier: Path, later: Path) -> int | None:
    """Count the modules without weights between two children of one ``Sequential``: 0 to 2 has one, 0 to 1 none.

    Returns:
        None where the paths are no such children: then nothing is known of what stands between.
    """
    common = kinship(earlier, later)
    a, b = earlier[common:], later[common:]
    if len(a) != 1 or len(b) != 1 or not (a[0].isdigit() and b[0].isdigit()):
        return None
    between = int(b[0]) - int(a[0]) - 1
    return between if between >= 0 else None


def siblings_missing(names: Sequence[str]) -> tuple[str, ...]:
    """Name what is missing in a row of siblings: denselayer1 and denselayer3 lack denselayer2."""
    numbered: dict[tuple[str, str], list[int]] = {}
    for name in names:
        if match := re.fullmatch(r"(.*?)(\d+)(\D*)", name):
            numbered.setdefault((match[1], match[3]), []).append(int(match[2]))
    return tuple(
        f"{before}{number}{after}"
        for (before, after), row in numbered.items()
        for number in range(min(row), max(row))
        if number not in row
    )
