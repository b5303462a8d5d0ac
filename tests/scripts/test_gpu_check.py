"""The check of a GPU: where there is none it says so, measures nothing and writes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy_kit.engines import _cuda

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check"


@pytest.mark.slow
@pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--out", tmp_path / "gpu.json", "--work", tmp_path / "work"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout, list(tmp_path.iterdir())) == (4, "", [])
    assert ended.stderr == (
        "not checked: no NVIDIA GPU on this machine\n  fix: run it on a machine with an NVIDIA GPU\n"
    )
