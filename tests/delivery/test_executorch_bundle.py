"""A bundle of ExecuTorch gives its golden outputs by its own program and by deploykit, and a damaged one is not run."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_making import pack, reseal

import deploy_kit
from deploy_kit.base import lazy
from deploy_kit.base.errors import InputError

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = [
    pytest.mark.skipif(not lazy.present("executorch"), reason=lazy.install_line("executorch")),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def bundle(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(line, "fp32", "executorch", tmp_path_factory.mktemp("bundles") / "bundle")


def test_its_own_program_gives_the_golden_outputs(bundle: Path) -> None:
    ended = subprocess.run([sys.executable, "verify.py"], cwd=bundle, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_it_verifies_where_it_was_packed_and_a_program_that_is_cut_off_is_never_loaded(
    bundle: Path, tmp_path: Path
) -> None:
    assert deploy_kit.verify(bundle).ok

    broken = shutil.copytree(bundle, tmp_path / "broken")
    program = broken / "model.pte"
    program.write_bytes(program.read_bytes()[:-64])
    reseal(broken)

    with pytest.raises(InputError, match="no whole program of ExecuTorch"):
        deploy_kit.verify(broken)
