"""Fixtures: a device behind a real SSH server on this machine. A plugin of `conftest`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_server
from machine_needs import why_missing
from ssh_server import Server

from deploy_kit.records.artifacts import Device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-ssh", action="store_true", help="leave out the tests that need an SSH server")


def require_ssh(config: pytest.Config) -> None:
    """Skip where there is no SSH server to test with."""
    if config.getoption("--without-ssh"):
        pytest.skip("--without-ssh was given")
    if why := why_missing("an SSH server", (ssh_server.SSHD, "ssh-keygen"), "openssh-server openssh-client"):
        pytest.skip(why)


@pytest.fixture(scope="session")
def one_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all tests share."""
    require_ssh(request.config)
    with ssh_server.running(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def server(one_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, its device's home emptied, the user's home where its keys lie, in an empty working folder."""
    monkeypatch.setenv("HOME", str(one_server.host_home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    one_server.reset()
    yield one_server
    one_server.reset()


@pytest.fixture
def board(server: Server) -> Device:
    """The device behind the server, run by this environment's Python."""
    return Device(name="board", link="ssh", address=server.address, python=sys.executable)
