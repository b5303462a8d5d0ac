"""What goes wrong with a device, caused for real over SSH: each message is read, and nothing stays behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ssh_server
from ssh_server import Server, until

from deploy_kit.analysis import doctor
from deploy_kit.base import lazy
from deploy_kit.base.errors import DeviceError, EngineCrashError, LinkLostError, MissingPackageError
from deploy_kit.devices import links, login
from deploy_kit.records.artifacts import Device

LITTLE_MEMORY = (
    "killed from outside, most often because the machine is out of memory: close other programs, use a smaller batch, "
    "or bound a builder's scratch memory (-o workspace_mib=512)"
)
# What Python 3.8.10 answers to the line that asks for its version.
OLD_PYTHON = """#!/bin/sh
echo "python 3.8.10"
"""


def refusal(device: Device) -> DeviceError:
    with pytest.raises(DeviceError) as caught, links.connect_device(device):
        pass
    assert caught.value.exit_code == 4
    return caught.value


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A real interpreter that has no packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    return tmp_path / "bare" / "bin" / "python"


def give_numpy(python: Path) -> None:
    packages = Path(np.__file__).parent.parent
    (target,) = python.parent.parent.glob("lib/python*/site-packages")
    for name in ("numpy", "numpy.libs"):
        if (packages / name).is_dir():
            (target / name).symlink_to(packages / name)


def test_the_package_for_ssh_is_asked_for_where_it_is_missing(board: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "present", lambda package: package != "fabric")

    with pytest.raises(MissingPackageError) as caught, links.connect_device(board):
        pass

    assert str(caught.value) == (
        f"device 'board' at 'ssh://{board.address}' needs the package 'fabric', which is not installed here"
    )
    assert caught.value.hint == "pip install 'deploykit[ssh]'"


def test_no_python_at_all(board: Device) -> None:
    error = refusal(replace(board, python="python-that-nobody-has"))

    assert str(error) == "device 'board': there is no 'python-that-nobody-has'"
    assert error.hint.startswith("on board: sudo apt-get install python3 python3-numpy, or name the one to use: ")


def test_a_python_in_the_home_of_its_user_there(board: Device, server: Server) -> None:
    there = server.device_home / "my env" / "python3"
    there.parent.mkdir()
    there.write_text(f'#!/bin/sh\nexec {board.python} "$@"\n')
    there.chmod(0o755)

    with links.connect_device(replace(board, python="~/my env/python3")) as connection:
        assert connection.environment.cores


def test_a_python_that_is_too_old(board: Device, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)

    error = refusal(replace(board, python=str(old)))

    assert str(error) == f"device 'board': expected Python 3.10 or newer, found 3.8.10 ('{old}')"
    assert error.hint == "install a newer one there, and name it: deploykit devices add … --python PATH"


def test_a_python_that_does_not_run(board: Device) -> None:
    assert str(refusal(replace(board, python="false"))) == "device 'board': 'false' does not run"


def test_no_numpy(board: Device, bare_python: Path) -> None:
    error = refusal(replace(board, python=str(bare_python)))

    assert str(error) == "device 'board': every job needs the package 'numpy', which is not installed there"
    assert error.hint == f"on board: {bare_python} -m pip install 'numpy'"


def test_a_device_without_numpy_can_be_looked_at_and_cleaned(board: Device, bare_python: Path) -> None:
    bare = replace(board, python=str(bare_python))

    with links.connect_device(bare, bare=True) as connection:
        found = doctor.probe(connection)

    assert found.environment.cores > 0
    assert {row.detail for row in found.findings} == {"package 'numpy' is not installed"}
    assert {row.runs for row in found.findings} == {False}
    assert links.clean_device(bare).n_bytes > 0


def test_no_engine(board: Device, bare_python: Path) -> None:
    give_numpy(bare_python)

    with links.connect_device(replace(board, python=str(bare_python))) as connection, connection.worker() as worker:
        with pytest.raises(DeviceError) as caught:
            worker.ask("open", "model.onnx", engine="onnxruntime", path="model.onnx", options={})
        assert connection.lacks("onnxruntime") == f"{bare_python} -m pip install 'onnxruntime'"

    assert str(caught.value) == (
        "device 'board': engine 'onnxruntime' needs the package 'onnxruntime', which is not installed there"
    )
    assert caught.value.hint == f"on board: {bare_python} -m pip install 'onnxruntime'"
    assert caught.value.exit_code == 4


def test_a_login_that_is_refused(board: Device, server: Server) -> None:
    key, kept = server.host_home / ".ssh" / "id_ed25519", server.folder / "kept_key"
    key.rename(kept)
    try:
        ssh_server.key(key)
        error = refusal(board)
    finally:
        kept.rename(key)

    assert str(error).startswith(f"device 'board': 127.0.0.1:{server.port} refuses the login of '")
    user = server.address.split("@")[0]
    assert error.hint == f"ssh-copy-id -p {server.port} {user}@127.0.0.1   (or load your key: ssh-add)"


def test_a_login_without_any_key(board: Device, server: Server) -> None:
    key, kept = server.host_home / ".ssh" / "id_ed25519", server.folder / "kept_key"
    key.rename(kept)
    try:
        error = refusal(board)
    finally:
        kept.rename(key)

    user, at = server.address.split("@")[0], f"127.0.0.1:{server.port}"
    why = "there is no key here that it could take"
    assert str(error) == f"device 'board': {at} refuses the login of '{user}': {why}"
    assert error.hint == f"ssh-copy-id -p {server.port} {user}@127.0.0.1   (or load your key: ssh-add)"


def test_an_agent_that_cannot_start_says_its_last_words(board: Device, server: Server) -> None:
    server.cache.mkdir(parents=True)
    (server.cache / "sessions").write_bytes(b"a file where a folder should be")

    error = refusal(board)

    assert str(error).startswith("device 'board': the agent did not start there; its last output: ")
    assert "FileExistsError" in str(error)
    assert error.hint == "on board: df -h ~; ls -ld ~/.cache/deploykit"


def test_a_key_that_is_locked_is_not_asked_for(board: Device, server: Server) -> None:
    key = server.host_home / ".ssh" / "id_ed25519"
    kept = key.read_bytes()
    try:
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-P", "", "-f", key], check=True)
        error = refusal(board)
    finally:
        key.write_bytes(kept)

    assert str(error) == "device 'board': the key is locked with a passphrase"
    assert error.hint == "ssh-add, then again"


def test_a_host_that_does_not_listen(board: Device) -> None:
    port = ssh_server.free_port()

    error = refusal(replace(board, address=f"me@127.0.0.1:{port}"))

    assert str(error) == f"device 'board': 127.0.0.1:{port} refuses the connection"
    assert error.hint == f"is it on, and does its SSH server run? try: ssh -p {port} me@127.0.0.1"


def test_a_host_that_closes_the_connection_is_told_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(9)], daemon=True).start()
        address = f"ssh://me@127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "deploy_kit", "devices", "probe", address]

        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 4
    assert "cannot be reached: " in ended.stderr
    assert "Traceback" not in ended.stderr and "Exception (client)" not in ended.stderr


def test_a_host_that_does_not_exist(board: Device) -> None:
    error = refusal(replace(board, address="me@no-such-host.invalid"))

    assert str(error) == "device 'board': no host is called 'no-such-host.invalid'"


def test_a_login_that_talks_is_not_taken_for_an_answer(board: Device, server: Server) -> None:
    noise = 'echo "Welcome to Ubuntu"; echo "{}"; echo "python 2.7.18"; printf "no end of line"\n'
    (server.device_home / ".bashrc").write_text(noise)
    (server.device_home / ".profile").write_text(noise)

    with links.connect_device(board) as connection, connection.worker() as worker:
        assert worker.ask("environment", "board")["environment"]["cores"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (signal.SIGKILL, LITTLE_MEMORY),
        (signal.SIGABRT, "the engine's native code aborted; its last output is above"),
    ],
)
def test_a_worker_that_is_killed_there(board: Device, number: signal.Signals, hint: str) -> None:
    with links.connect_device(board) as connection, connection.worker() as worker:
        worker.ask("environment", "board")
        os.kill(worker.pid, number)  # type: ignore[attr-defined]

        with pytest.raises(EngineCrashError) as caught:
            worker.ask("environment", "model.plan")
        with pytest.raises(EngineCrashError):
            worker.ask("environment", "model.plan")

    assert str(caught.value) == f"model.plan: the worker process died in 'environment' with {number.name}"
    assert caught.value.hint == hint


def test_a_connection_that_is_cut_is_told_and_leaves_nothing(board: Device, server: Server) -> None:
    with (
        pytest.raises(LinkLostError) as caught,
        links.connect_device(board) as connection,
        connection.worker() as worker,
    ):
        pid = worker.pid  # type: ignore[attr-defined]
        worker.ask("environment", "board")
        threading.Timer(0.3, server.cut).start()
        while True:
            worker.ask("environment", "board")

    assert str(caught.value) == "device 'board': the connection was lost"
    assert caught.value.hint == (
        "see that it is on and in the network, and run the same line again: what was finished is kept"
    )
    assert caught.value.exit_code == 4
    assert until(lambda: not Path(f"/proc/{pid}").exists())
    assert until(lambda: [path.name for path in (server.cache / "sessions").iterdir()] == [".lock"])


def test_what_was_answered_before_the_connection_was_lost_counts(board: Device, server: Server) -> None:
    with links.connect_device(board) as connection, connection.worker() as worker:
        worker.ask("environment", "board")
        with pytest.raises(LinkLostError):
            server.cut()
            while True:
                worker.ask("environment", "board")

    with links.connect_device(board):
        assert until(lambda: len(server.sessions()) == 1)


def test_a_device_that_falls_silent_is_noticed(board: Device, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(login, "SERVER_SILENCE_S", 1.0)
    stopped = list[int]()
    try:
        with pytest.raises(LinkLostError), links.connect_device(board) as connection, connection.worker() as worker:
            worker.ask("environment", "board")
            stopped = server.login_processes()
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)  # as a cable that is pulled out: nothing comes, nothing is refused
            worker.ask("environment", "board")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def tight(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A second server, whose sessions cannot write a file of more than 200 kB (`ulimit -f`)."""
    with ssh_server.running(tmp_path / "tight", largest_file=200_000) as other:
        monkeypatch.setenv("HOME", str(other.host_home))
        yield other


def test_a_file_that_is_larger_than_the_device_allows(tight: Server, board: Device, tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(os.urandom(1_000_000))
    device = replace(board, address=tight.address)

    with links.connect_device(device) as connection:
        with pytest.raises(DeviceError) as caught:
            connection.send(tmp_path / "model.plan", keep=True)
        left = [path for path in tight.cache.rglob("*") if path.is_file() and "sessions" not in path.parts]
        assert connection.environment.cores  # the connection goes on

    assert str(caught.value).endswith(": File too large")
    assert caught.value.hint == "see what is limited or forbidden there: ulimit -f; ls -ld ~/.cache"
    assert caught.value.exit_code == 4
    assert [path.suffix for path in left] == [".pyz"]


def test_the_free_space_is_that_of_the_folder_that_is_full(board: Device, server: Server) -> None:
    folder = server.device_home / ".cache"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        error = refusal(board)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)

    # A file system of 64 kB: the home's own has gigabytes.
    assert re.fullmatch(
        r"device 'board': '~/\.cache/deploykit' cannot be written: 0\.\d MiB are free there", str(error)
    )
