"""Fixtures: the emulated arm64 device of `edge_machine.py`. A plugin of `conftest`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import edge_machine as machine
import pytest
from edge_machine import Served


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-edge", action="store_true", help="leave out the tests on the emulated arm64 device")


@pytest.fixture(scope="session")
def edge_root(request: pytest.FixtureRequest) -> Path:
    """Its root, built if need be. Where it cannot be had its tests fail; only ``--without-edge`` leaves them out."""
    if request.config.getoption("--without-edge"):
        pytest.skip("--without-edge was given")
    with told():
        return machine.build()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Fail with the reason in one line where there is no device."""
    try:
        yield
    except machine.EdgeError as error:
        words = "to leave its tests out: PYTEST_ADDOPTS=--without-edge make test, or pytest --without-edge"
        pytest.fail(f"no emulated arm64 device: {error}; {words}", pytrace=False)


@pytest.fixture(scope="session")
def served_edge(edge_root: Path) -> Iterator[Served]:
    """The device with its SSH server running."""
    with contextlib.ExitStack() as stack:
        with told():
            served = stack.enter_context(machine.serving(edge_root))
        yield served


@pytest.fixture
def edge(served_edge: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The device, its user's home where its keys lie, in an empty working folder."""
    monkeypatch.setenv("HOME", str(served_edge.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return served_edge
