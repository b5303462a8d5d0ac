"""The examples run as they stand, one after the other, as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

pytestmark = pytest.mark.xdist_group("examples")  # they share a store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder they are run in, with one store: what one exported, the next one finds."""
    return tmp_path_factory.mktemp("examples")


def run(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in a process of its own, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""  # progress is drawn for people alone
    return ended.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_is_short_and_says_first_what_it_shows(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()

    assert len(lines) < 60
    assert lines[0].startswith('"""') and lines[0].endswith('"""')


@pytest.mark.slow
def test_a_checkpoint_is_deployed_and_its_report_read(folder: Path) -> None:
    said = run("deploy_a_checkpoint.py", folder)

    # Other tests beside it are foreign load, which spoils the latency and leaves the verdict on accuracy.
    verdict = "(accepted|undecided: latency INVALID)"
    for label in ("fp32 · onnxruntime", "int8 · onnxruntime"):
        assert re.search(rf"{label}: {verdict}", said)
    assert "DenseNet-BC-40 (k = 12)" in said and "top-1 93.56%" in said
    assert "every limit is kept" in said

    read = run("read_a_report.py", folder)

    assert re.search(rf"int8 · onnxruntime ← int8 ← fp32 ← exported ← checkpoint: {verdict}", read)
    assert "passes that fired: " in read and "fold_batchnorm " in read


@pytest.mark.slow
def test_ones_own_arrays_are_quantized_with(folder: Path) -> None:
    said = run("quantize_your_own.py", folder)

    assert "minmax: SQNR" in said and "mse: SQNR" in said
    assert (folder / "int8-minmax.onnx").is_file() and (folder / "int8-mse.onnx.passport.json").is_file()


@pytest.mark.slow
def test_engines_are_compared_in_turns(folder: Path) -> None:
    said = run("compare_engines.py", folder)

    assert "fp32 · onnxruntime computes in" in said
    assert "images/s, the baseline" in said
    assert said.count(" images/s, ") == 4
