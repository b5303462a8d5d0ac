"""Fixtures: the emulated arm64 device of `edge_machine.py`. A plugin of `conftest`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import edge_machine as machine
import pytest
from edge_machine import Served
from machine_needs import why_missing

THING = "an emulated arm64 device"
BUILD = "python tests/support/edge_machine.py build"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-edge", action="store_true", help="leave out the tests on the emulated arm64 device")


@pytest.fixture(scope="session")
def edge_root(request: pytest.FixtureRequest) -> Path:
    """Its root, built if need be."""
    if request.config.getoption("--without-edge"):
        pytest.skip("--without-edge was given")
    if why := why_missing(THING, machine.TOOLS, machine.PACKAGES):
        pytest.skip(why)
    try:
        return machine.build()
    except machine.EdgeError as error:
        pytest.skip(f"needs {THING} ({error}): {BUILD}")


@pytest.fixture(scope="session")
def served_edge(edge_root: Path) -> Iterator[Served]:
    """The device with its SSH server running."""
    with contextlib.ExitStack() as stack:
        try:
            served = stack.enter_context(machine.serving(edge_root))
        except machine.EdgeError as error:
            pytest.fail(f"the emulated arm64 device does not serve: {error}", pytrace=False)
        yield served


@pytest.fixture
def edge(served_edge: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The device, its user's home where its keys lie, in an empty working folder."""
    monkeypatch.setenv("HOME", str(served_edge.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return served_edge
