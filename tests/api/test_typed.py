"""A user's type checker understands the API: the examples pass ``mypy --strict``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRICT = ("--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy says of the examples and of one more file, checked as a user's project would be.

    The package's own files are somebody else's.
    """
    wrong = tmp_path_factory.mktemp("typed") / "wrong.py"
    wrong.write_text("import deploy_kit\n\ndeploy_kit.bench(deploy_kit.export())\n")
    files = [*sorted((ROOT / "examples").glob("*.py")), wrong]
    command = [sys.executable, "-m", "mypy", *STRICT, f"--cache-dir={ROOT / '.mypy_cache'}", *map(str, files)]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    return said.stdout.splitlines()


@pytest.mark.slow
def test_the_examples_are_typed(complaints: list[str]) -> None:
    assert [line for line in complaints if "wrong.py:" not in line] == []


@pytest.mark.slow
def test_a_wrong_type_is_noticed(complaints: list[str]) -> None:
    found = "\n".join(complaints)

    assert "wrong.py:3" in found and '"Exported"' in found
