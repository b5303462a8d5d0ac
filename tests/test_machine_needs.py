"""The end of a test run: what the machine lacked has a line with its remedy, and ``--complete`` fails for it."""

import os
import subprocess
import sys
from pathlib import Path

import edge_machine
import pytest
import ssh_server
from machine_needs import need_of, needs_hardware, why_missing

from deploy_kit.base.lazy import install_line
from deploy_kit.engines import _cuda

ROOT = Path(__file__).parents[1]
OUTCOMES = """
import pytest

@pytest.fixture(scope="session")
def one_server():
    pytest.skip("needs an SSH server: apt-get install openssh-server")

@pytest.mark.parametrize("n", range(3))
def test_of_a_device(one_server, n): ...

@pytest.mark.skipif(True, reason="pip install 'deploykit[nncf]'")
def test_of_a_package(): ...

@pytest.mark.skipif(True, reason="one core: nothing overtakes")
def test_by_design(): ...

@pytest.mark.xfail(strict=True)
def test_fails(): assert 0

@pytest.mark.slow
def test_slow(): ...
"""
SERVER = "NOT TESTED: 3 tests need an SSH server: apt-get install openssh-server"
PACKAGE = "NOT TESTED: 1 test needs a package: pip install 'deploykit[nncf]'"


@pytest.fixture
def run(tmp_path: Path) -> object:
    """Run the tests above by a pytest that has the plugin."""
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nmarkers =\n slow: x\n ssh: x\n gpu: x\npythonpath = {ROOT} {ROOT / 'tests/support'}"
    )
    command = (sys.executable, "-m", "pytest", "-q", "-p", "machine_needs", "-p", "no:cacheprovider")

    def with_options(*options: str) -> tuple[int, list[str]]:
        # Without the options of the run that these tests are part of, such as CI's --complete.
        bare = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        done = subprocess.run([*command, *options], cwd=tmp_path, env=bare, capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    return with_options


@pytest.mark.slow
def test_each_thing_that_is_absent_has_one_line_at_the_end(run) -> None:
    code, out = run()

    assert code == 0
    assert out[-3:-1] == [PACKAGE, SERVER]
    assert "LEFT OUT" not in "".join(out)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "in workers"])
def test_a_complete_run_fails_for_what_is_absent(run, workers: tuple[str, ...]) -> None:
    code, out = run("--complete", *workers)

    assert code == 1
    assert out[-3:-1] == [PACKAGE, SERVER]
    assert "1 passed, 1 skipped, 1 xfailed, 4 errors" in out[-1]


@pytest.mark.slow
def test_what_the_markers_leave_out_is_counted(run) -> None:
    code, out = run("-m", "not slow and not ssh")

    assert code == 0
    assert out[-3:-1] == [PACKAGE, "LEFT OUT: 4 tests by -m 'not slow and not ssh'; make test runs all"]


def test_a_gpu_is_not_asked_for_by_a_complete_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "why_no_cuda", lambda: "no NVIDIA GPU on this machine")

    gpu = need_of("no NVIDIA GPU on this machine", ("gpu",))
    tensorrt, nncf = (need_of(install_line(package)) for package in ("tensorrt", "nncf"))

    assert (
        gpu
        == need_of(install_line("tensorrt"), ("gpu",))
        == ("an NVIDIA GPU", "run scripts/gpu_check where there is one")
    )
    assert [needs_hardware(need) for need in (gpu, tensorrt, nncf)] == [True, True, False]


def test_where_there_is_a_gpu_its_tests_need_what_their_reason_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "why_no_cuda", lambda: "")

    assert need_of("pip install 'deploykit[nncf]'", ("gpu",)) == ("a package", "pip install 'deploykit[nncf]'")


@pytest.mark.parametrize(
    ("programs", "packages"),
    [((ssh_server.SSHD, "ssh-keygen"), "openssh-server openssh-client"), (edge_machine.TOOLS, edge_machine.PACKAGES)],
)
def test_programs_that_are_absent_are_named_by_the_command_that_adds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: tuple[str, ...], packages: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert why_missing("it", programs, packages) == f"needs it: apt-get install {packages}"
    assert why_missing("it", (sys.executable,), packages) == ""


@pytest.mark.slow
def test_the_fixtures_of_devices_skip_where_their_programs_are_absent(tmp_path: Path) -> None:
    tests = (
        "tests/devices/test_ssh_faults.py::test_a_python_that_does_not_run",
        "tests/edge/test_machine.py::test_it_is_a_64_bit_arm_machine",
    )
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)

    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-3:-1] == [
        "NOT TESTED: 1 test needs an SSH server: apt-get install openssh-server openssh-client",
        f"NOT TESTED: 1 test needs an emulated arm64 device: apt-get install {edge_machine.PACKAGES}",
    ]
