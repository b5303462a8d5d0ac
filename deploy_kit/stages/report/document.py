"""Parts of a report, whichever way it is drawn: sections of sentences, tables and lists."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        headings: Heading of each column.
        rows: Lines, with a cell for each column.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a report.

    Attributes:
        title: Heading.
        blocks: Sentences, tables and lists of remarks (tuples of sentences), in order; empty ones are left out.
    """

    title: str
    blocks: tuple[str | Table | tuple[str, ...], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not any(self.blocks)
