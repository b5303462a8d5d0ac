"""Cases of all lint rules: for each a graph where it applies, and one beside it where it does not.

The cases of a rule are the constant ``CASES`` of ``tests/graph/lint/cases/<rule>.py``.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from lint_graphs import Case

_FOLDER = Path(__file__).parents[1] / "graph" / "lint" / "cases"


def _read(file: Path) -> tuple[Case, ...]:
    return tuple(replace(case, rule=file.stem) for case in runpy.run_path(str(file))["CASES"])


CASES = tuple(case for file in sorted(_FOLDER.glob("*.py")) for case in _read(file))
TENSORRT = tuple(case for case in CASES if case.target == "tensorrt_rtx" and case.tried)
"""What TensorRT-RTX itself is asked about."""
