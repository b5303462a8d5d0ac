"""The user's own folders, where there is a home and where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy_kit.base.user_folders import cache_folder, config_folder

PACKAGE = Path(__file__).parents[2]
# The command line of a user that no password file names, as in a container that was started with --user 12345.
NAMELESS = """
import pwd, sys

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody
from deploy_kit.cli import main
main()
"""


def test_the_folders_are_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")

    assert (config_folder(), cache_folder()) == (tmp_path / ".config/deploykit", tmp_path / ".cache/deploykit")


def test_xdg_goes_over_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))

    assert config_folder() == tmp_path / "c" / "deploykit"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("devices", "list"), 0, ""),
        (("doctor", "--quiet"), 0, ""),
        (("report",), 2, "nothing was exported here yet"),
        (("devices", "add", "orin", "ssh://orin"), 4, "fix: set HOME or XDG_CONFIG_HOME, or write devices.yaml"),
    ],
    ids=["list", "doctor", "report", "add"],
)
def test_a_user_without_a_home_can_work(tmp_path: Path, command: tuple[str, ...], code: int, words: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)}

    ended = subprocess.run(
        [sys.executable, "-c", NAMELESS, *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, words in ended.stderr) == (code, True), ended.stderr


@pytest.mark.parametrize(("argument", "code"), [("list", 2), ("--help", 0)])
def test_a_working_folder_that_is_gone_is_named_and_its_cure_holds(tmp_path: Path, argument: str, code: int) -> None:
    line = f"mkdir gone && cd gone && rmdir ../gone; {sys.executable} -m deploy_kit devices {argument}"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}

    def ended(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    gone = ended(line)
    assert gone.returncode == code, gone.stderr
    assert ("error: the working folder does not exist any more\n  fix: go to one that does: cd ~" in gone.stderr) == (
        code == 2
    )
    assert ended(line.replace("; ", "; cd ..; ")).returncode == 0
