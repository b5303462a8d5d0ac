"""Tables in Markdown."""

from collections.abc import Sequence


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a table, one line per row; line breaks and bars within a cell are replaced."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines]
