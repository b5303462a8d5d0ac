"""Where no SSH server can be had, the tests that need one fail with the reason in one line, or are left out."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pytest_said(*arguments: str, path: str) -> str:
    """Run one test of a device where `path` is all that programs are looked for in."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    test = "tests/devices/test_ssh_faults.py::test_a_python_that_does_not_run"
    return subprocess.run([*command, test], capture_output=True, text=True, cwd=ROOT, env={"PATH": path}).stdout


def test_what_is_not_installed_is_named_with_the_way_to_go_without(tmp_path: Path) -> None:
    said = pytest_said(path=str(tmp_path))

    assert "Traceback" not in said
    assert "ssh-keygen (Debian: openssh-server openssh-client); to leave these tests out: " in said
    assert "PYTEST_ADDOPTS=--without-ssh make test, or pytest --without-ssh" in said


def test_without_it_these_tests_are_skipped_and_say_so(tmp_path: Path) -> None:
    assert "--without-ssh was given" in pytest_said("--without-ssh", "-rs", path=str(tmp_path))
