"""Where the emulated device cannot be had, the reason is one line. These tests need no such device."""

import subprocess
import sys
from pathlib import Path

import edge_machine as machine
import pytest

ROOT = Path(__file__).parents[2]


def pytest_said(*arguments: str, path: str) -> str:
    """Run one test of the device where `path` is all that programs are looked for in."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    test = "tests/edge/test_machine.py::test_it_is_a_64_bit_arm_machine"
    done = subprocess.run([*command, test], capture_output=True, text=True, cwd=ROOT, env={"PATH": path})
    return done.stdout


def test_what_is_not_installed_is_named_with_the_way_to_go_without(tmp_path: Path) -> None:
    said = pytest_said(path=str(tmp_path))

    assert "Traceback" not in said
    assert (
        "no emulated arm64 device: not installed: debootstrap, qemu-aarch64-static, ssh-keygen, unshare, setpriv "
        "(Debian: debootstrap qemu-user-static openssh-client util-linux); to leave its tests out: "
        "PYTEST_ADDOPTS=--without-edge make test, or pytest --without-edge" in said
    )


def test_without_it_its_tests_are_skipped_and_say_so(tmp_path: Path) -> None:
    assert "--without-edge was given" in pytest_said("--without-edge", "-rs", path=str(tmp_path))


def test_a_step_that_fails_gives_its_last_words_in_one_line() -> None:
    words = ("sh", "-c", "echo first; echo 'E: no mirror'; echo; echo gone; exit 3")

    with pytest.raises(machine.EdgeError) as caught:
        machine._quietly("debootstrap", words)

    assert str(caught.value) == "debootstrap failed with 3: first / E: no mirror / gone"
