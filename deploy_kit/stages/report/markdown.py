"""Tables of Markdown."""

from collections.abc import Sequence

NONE = "–"


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Write a table, a line a row; a cell keeps no line break and no bar of its own."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines]
