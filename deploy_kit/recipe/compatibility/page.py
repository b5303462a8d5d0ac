"""The table as a page of documentation: a section for each part, a row for each row, its source behind it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from deploy_kit.recipe.compatibility import compatibility_table

_TITLES = {
    "jetpack": "JetPack",
    "modules": "Jetson modules",
    "dla": "DLA",
    "tensorrt_on_jetson": "TensorRT that no JetPack ships",
    "sm": "Compute capability",
    "driver": "Driver for CUDA (Linux, not Jetson)",
    "onnx": "Newest ONNX that is read",
    "known_bad": "Releases known to be bad",
}


def markdown() -> str:
    """Lay out all rows as Markdown; a cell that no source states is empty."""
    rows = compatibility_table()
    return "\n\n".join(f"### {title}\n\n{_part(getattr(rows, name))}" for name, title in _TITLES.items())


def _part(rows: Sequence[Any]) -> str:
    names = [
        field.name for field in dataclasses.fields(rows[0]) if any(_cell(getattr(row, field.name)) for row in rows)
    ]
    names.sort(key=("source", "note").__contains__)  # these two last, all else in the record's order
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value) if value else "none"
    return "" if value is None else str(value)
