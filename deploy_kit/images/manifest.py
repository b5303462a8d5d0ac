"""CSV manifests: a line an image, with its file and what it shows.

After the file's column comes one column of labels (whole numbers, names of classes, or several names with ``|``
between them), or one column of 0 and 1 for each class, or nothing.
"""

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_kit.base.errors import InputError, nearest
from deploy_kit.images.files import Listing, class_names

_FILE = ("path", "image", "file", "filename", "image index")
_LABEL = ("label", "labels", "class", "finding labels")
_SEVERAL, _NONE = "finding labels", "no finding"  # as ChestX-ray14 (Wang et al., CVPR 2017) has them
_WHOLE = re.compile(r"-?\d{1,9}(\.0+)?")  # pandas writes whole numbers as 3.0 where a column has gaps
_MEND = "mend or remove the line, or leave such lines out: --skip-bad ('skip_bad: true' in a recipe)"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One line: its number, its file, and its cells under the columns that say what it shows."""

    line: int
    file: str
    cells: tuple[str, ...]


class _Rows:
    """The lines that are still good, and those that were left out."""

    def __init__(self, path: Path, rows: tuple[_Row, ...], *, skip_bad: bool) -> None:
        self.path, self.good, self._skip_bad = path, rows, skip_bad
        self.skipped: tuple[tuple[str, str], ...] = ()

    def keep(self, fault: Callable[[_Row], str]) -> None:
        """Keep what has no fault; the rest is an error, or left out."""
        faults = [(row, fault(row)) for row in self.good]
        bad = [(row, why) for row, why in faults if why]
        if bad and not self._skip_bad:
            row, why = bad[0]
            raise InputError(f"{self.path}: line {row.line}: {why}", hint=_MEND)
        self.good = tuple(row for row, why in faults if not why)
        self.skipped += tuple((row.file or f"line {row.line}", why) for row, why in bad)


def read_manifest(path: Path, *, skip_bad: bool) -> Listing:
    """Read a manifest; files are relative to its folder.

    Raises:
        InputError: Not a CSV file, no column of files, or (without `skip_bad`) a line that cannot be used.
    """
    header, table = _table(path)
    place = _column(path, header, _FILE)
    if place is None:
        raise InputError(
            f"{path}: expected a column '{_FILE[0]}' (or {', '.join(_FILE[1:])}), found {', '.join(header)}",
            hint="the first line names the columns, e.g. path,label",
        )
    label = _column(path, header, _LABEL)
    columns = [label] if label is not None else [i for i, name in enumerate(header) if i != place and name]
    rows = _Rows(path, _rows(table, place, columns), skip_bad=skip_bad)
    lengths = {line: len(cells) for line, cells in table}
    rows.keep(lambda row: "" if lengths[row.line] == len(header) else _uneven(lengths[row.line], len(header)))
    _keep_files(rows)
    if label is None:
        labels, classes = _of_columns(rows, tuple(header[i] for i in columns))
    else:
        labels, classes = _of_one_column(rows, several=header[label].casefold() == _SEVERAL)
    files = tuple(path.parent / row.file for row in rows.good)
    names = tuple(row.file for row in rows.good)
    return Listing(files=files, names=names, labels=labels, classes=classes, skipped=rows.skipped)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and each line that is not empty with its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds bytes that are no text")
        first = text.split("\n", 1)[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file: {error}", hint="expected text, e.g. path,label") from error
    if not lines:
        raise InputError(f"{path}: expected at least one image, found none")
    return lines[0][1], lines[1:]


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int | None:
    """Find the column of one of these names, in any case."""
    folded = [name.casefold() for name in header]
    for name in folded:
        if name and folded.count(name) > 1:
            raise InputError(f"{path}: the column '{name}' is there twice")
    return next((folded.index(name) for name in names if name in folded), None)


def _rows(table: list[tuple[int, list[str]]], place: int, columns: list[int]) -> tuple[_Row, ...]:
    def cell(cells: list[str], column: int) -> str:
        return cells[column] if column < len(cells) else ""

    return tuple(
        _Row(line=line, file=cell(cells, place), cells=tuple(cell(cells, column) for column in columns))
        for line, cells in table
    )


def _uneven(found: int, expected: int) -> str:
    return f"expected {expected} cells as in the first line, found {found}"


def _keep_files(rows: _Rows) -> None:
    """Keep each line whose file is there, and named for the first time."""
    first = dict[str, int]()

    def fault(row: _Row) -> str:
        if not row.file:
            return "names no file"
        known = first.setdefault(str(Path(row.file)), row.line)
        if known != row.line:
            return f"'{row.file}' is in line {known} already"
        there = os.path.isfile(file := rows.path.parent / row.file)  # noqa: PTH113  # pathlib's raises for a long name
        return "" if there else f"no such file: {file}"

    rows.keep(fault)


def _of_one_column(rows: _Rows, *, several: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read one column of labels: numbers, names, or several names with a bar between them."""
    known = class_names(rows.path.parent)
    rows.keep(lambda row: "" if row.cells[0] else f"no label for '{row.file}'")
    if several or any("|" in row.cells[0] for row in rows.good):
        return _of_several(rows, known)
    whole = [_WHOLE.fullmatch(row.cells[0]) is not None for row in rows.good]
    if whole and 2 * sum(whole) >= len(whole):
        rows.keep(lambda row: "" if _WHOLE.fullmatch(row.cells[0]) else _odd(row, "a whole number"))
        return np.array([int(row.cells[0].split(".")[0]) for row in rows.good], np.int64), known
    rows.keep(lambda row: _odd(row, "the name of a class") if _WHOLE.fullmatch(row.cells[0]) else "")
    classes = known or tuple(sorted({row.cells[0] for row in rows.good}))
    rows.keep(lambda row: _unknown(row.cells, classes))
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[row.cells[0]] for row in rows.good], np.int64), classes


def _of_several(rows: _Rows, known: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    def names(row: _Row) -> tuple[str, ...]:
        parts = (part.strip() for part in row.cells[0].split("|"))
        return tuple(part for part in parts if part and part.casefold() != _NONE)

    classes = known or tuple(sorted({name for row in rows.good for name in names(row)}))
    rows.keep(lambda row: _unknown(names(row), classes))
    labels = np.array([[one in names(row) for one in classes] for row in rows.good], np.uint8)
    return labels.reshape(len(rows.good), len(classes)), classes


def _of_columns(rows: _Rows, classes: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Read one column of 0 and 1 for each class."""
    if not classes:
        return None, ()

    def fault(row: _Row) -> str:
        for name, cell in zip(classes, row.cells, strict=True):
            if cell not in ("0", "1", "0.0", "1.0"):
                found = f"found '{cell}'" if cell else f"found no label for '{row.file}'"
                return f"column '{name}': expected 0 or 1 (no column is called 'label'), {found}"
        return ""

    rows.keep(fault)
    labels = np.array([[cell[0] == "1" for cell in row.cells] for row in rows.good], np.uint8)
    return labels.reshape(len(rows.good), len(classes)), classes


def _odd(row: _Row, expected: str) -> str:
    return f"expected {expected} as label like most lines, found '{row.cells[0]}'"


def _unknown(names: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return which of the names is no class; empty if all are."""
    odd = next((name for name in names if name not in classes), None)
    return "" if odd is None else f"no class is called '{odd}' in classes.txt ({nearest(odd, classes)})"
