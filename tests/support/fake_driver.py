"""A CUDA driver that computes nothing, compiled from C, so that ctypes meets a real ABI.

A plugin: `pytest_plugins = ["fake_driver"]`. No number that comes out of it is a measurement.
"""

import subprocess
from pathlib import Path

import pytest
from machine_needs import why_missing

from deploy_kit.engines import _cuda

SOURCE = Path(__file__).with_name("fake_cuda.c")


class Driver:
    """The compiled driver: its log of calls, and a call that may be made to fail."""

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self._monkeypatch = log, monkeypatch

    @property
    def calls(self) -> list[str]:
        """What was called with what, and forget it."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines

    def fail(self, name: str, code: int) -> None:
        """Let one call answer with an error."""
        self._monkeypatch.setenv("FAKE_CUDA_FAIL", name)
        self._monkeypatch.setenv("FAKE_CUDA_CODE", str(code))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := why_missing("a C compiler", ("gcc",), "gcc libc6-dev"):
        pytest.skip(why)
    library = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    return library


@pytest.fixture
def driver(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Let the package find the driver and its GPU."""
    log = tmp_path / "calls.log"
    monkeypatch.setenv("FAKE_CUDA_LOG", str(log))
    monkeypatch.setattr(_cuda, "LIBRARY", str(compiled))
    monkeypatch.setattr(_cuda, "has_device_file", lambda: True)
    return Driver(log, monkeypatch)
