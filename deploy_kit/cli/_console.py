"""What a person sees: results on standard output, notes and progress on standard error."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from deploy_kit.base.plain_text import one_line, printable
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.progress_display import ProgressDisplay
from deploy_kit.base.standard_streams import is_utf8
from deploy_kit.records import codec

_LEAST = 24
"""Least width of a table's last column."""


class Console:
    """Draws progress and prints results. A context manager: it removes the progress bar at the end."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False, no_color: bool = False) -> None:
        """Choose how to draw: animated and in color only on a terminal that allows it."""
        self._quiet = quiet
        self._as_json = as_json
        moving = sys.stderr.isatty() and not no_color and "NO_COLOR" not in os.environ
        self._display = ProgressDisplay(moving=moving and not quiet)

    def __enter__(self) -> "Console":
        self._display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._display.stop()

    def on_progress(self, event: ProgressEvent) -> None:
        """Draw one event: as a progress bar on a terminal, else as one line per step, repeated every five seconds."""
        if not self._quiet:
            self._display.on_progress(event)

    def say(self, text: str) -> None:
        """Print a note on standard error."""
        if not self._quiet:
            self._display.write(text)

    def result(self, record: Any, text: str) -> None:
        """Print the result: the record where JSON is requested, else the text."""
        self._display.stop()
        whole = is_utf8(sys.stdout)
        written = json.dumps(codec.to_json(record), ensure_ascii=not whole, indent=1) if self._as_json else text
        sys.stdout.write(printable(written) + "\n")
        sys.stdout.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = ()) -> str:
    """Lay out text in columns; the last column wraps to the terminal's width.

    Args:
        headings: One text per column.
        rows: One text per column each.
        spare: Headings of columns that are left out, the first one first, where the terminal is too narrow for all.
    """
    for heading in spare:
        if _width(headings, rows) <= shutil.get_terminal_size((160, 24)).columns:
            break
        column = list(headings).index(heading)
        headings = [*headings[:column], *headings[column + 1 :]]
        rows = [[*row[:column], *row[column + 1 :]] for row in rows]
    lines = [tuple(headings), *((*map(one_line, row[:-1]), row[-1]) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings) - 1)]
    room = max(_LEAST, shutil.get_terminal_size((160, 24)).columns - sum(widths) - 2 * len(widths))
    drawn = []
    for number, line in enumerate(lines):
        start = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        pieces = _wrapped(line[-1], room)
        drawn.append(f"{start}  {pieces[0]}".rstrip() if widths else pieces[0])
        indent = " " * (sum(widths) + 2 * len(widths))
        drawn += [indent + piece for piece in pieces[1:]]
        if number == 0:
            drawn.append("  ".join("─" * width for width in (*widths, min(room, max(len(r[-1]) for r in lines)))))
    return "\n".join(drawn)


def _width(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width of a table whose last column wraps at `_LEAST`."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], _LEAST)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return [piece for line in text.splitlines() for piece in textwrap.wrap(line, width) or [""]] or [""]


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Lay out (name, value) lines; on a terminal a value wraps beside its name, elsewhere it stays one line."""
    width = max((len(one_line(name)) for name, _ in rows), default=0)
    begin = "\n" + " " * (width + 2)  # a value with a line feed in it must not look like a row
    room = max(_LEAST, shutil.get_terminal_size().columns - width - 2) if sys.stdout.isatty() else 0
    texts = ("\n".join(_wrapped(value, room)) if room else value for _, value in rows)
    names = (one_line(name).ljust(width) for name, _ in rows)
    return "\n".join(f"{name}  {text.replace(chr(10), begin)}" for name, text in zip(names, texts, strict=True))
