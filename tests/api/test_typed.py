"""A user's type checker understands the API: the examples pass ``mypy --strict``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRICT = ("--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary")


def checked(*files: Path) -> str:
    """Check files as a user's project would: the package's own files are somebody else's."""
    command = [sys.executable, "-m", "mypy", *STRICT, f"--cache-dir={ROOT / '.mypy_cache'}", *map(str, files)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"MYPYPATH": str(ROOT)}, cwd=ROOT
    ).stdout


@pytest.mark.slow
def test_the_examples_are_typed() -> None:
    assert checked(*sorted((ROOT / "examples").glob("*.py"))) == ""


@pytest.mark.slow
def test_a_wrong_type_is_noticed(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import deploy_kit\n\ndeploy_kit.bench(deploy_kit.export())\n")

    found = checked(wrong)

    assert "wrong.py:3" in found and '"Exported"' in found
