"""``deploykit devices`` and ``--device``, as a person types them, against a real SSH server."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import command_line
import pytest
from ssh_server import Server, descendants, until
from stand_ins import PretendLink

from deploy_kit.base.progress import ProgressEvent
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.records.artifacts import Device
from deploy_kit.stages import bench
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def deploykit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy_kit", *words], capture_output=True, text=True, check=False, env=dict(os.environ)
    )


@pytest.fixture
def named(server: Server) -> str:
    """The device, added under the name 'board'."""
    added = deploykit("devices", "add", "board", f"ssh://{server.address}", "--python", sys.executable)
    assert added.returncode == 0, added.stderr
    return "board"


def test_a_device_is_added_listed_probed_cleaned_and_removed(named: str, server: Server) -> None:
    listed = deploykit("devices", "list").stdout
    assert re.search(rf"^board +ssh://{re.escape(server.address)} +cpu +{re.escape(sys.executable)}$", listed, re.M)

    probed = deploykit("devices", "probe", named)
    assert probed.returncode == 0, probed.stderr
    assert re.search(r"^Python +" + re.escape(sys.version.split()[0]), probed.stdout, re.M)
    assert re.search(r"^onnxruntime +yes +1\.", probed.stdout, re.M)
    assert re.search(r"^tensorrt +no ", probed.stdout, re.M)

    cleaned = deploykit("devices", "clean", named)
    assert re.fullmatch(rf"{re.escape(str(server.cache))} on board: [\d.]+ [kM]B removed\n", cleaned.stdout)
    assert not server.cache.exists()

    removed = deploykit("devices", "remove", named)
    assert removed.stdout == f"removed 'board' from {server.host_home}/.config/deploykit/devices.yaml\n"
    assert "board" not in deploykit("devices", "list").stdout


def test_a_probe_says_once_how_numpy_comes_to_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orin = Device(name="orin", link="ssh", address="me@orin", accelerator="cuda:0")
    connection = PretendLink(tmp_path, {})
    monkeypatch.setattr(connection, "lacks", lambda package: "sudo apt-get install python3-numpy")
    monkeypatch.setattr(links, "find_device", lambda name: orin)
    monkeypatch.setattr(links, "connect_device", lambda device, bare: contextlib.nullcontext(connection))

    said = command_line.deploykit("devices", "probe", "orin")

    assert said.code == 0, said.err
    assert said.out.count("apt-get") == 1
    assert "-m venv ~/deploykit && ~/deploykit/bin/python3 -m pip install numpy" in said.out
    assert (
        "deploykit devices add orin ssh://me@orin --accelerator cuda:0 --python '~/deploykit/bin/python3' --replace"
        in said.out
    )


def test_a_probe_is_a_record_too(named: str) -> None:
    there = json.loads(deploykit("devices", "probe", named, "--json").stdout)

    assert there["environment"]["free_memory_gib"] > 0
    assert {row["name"] for row in there["findings"]} >= {"onnxruntime", "openvino", "tensorrt"}


def test_an_unknown_device_ends_with_4_and_the_line_that_adds_it(server: Server) -> None:
    said = deploykit("check", "--device", "jetson")

    assert said.returncode == 4
    assert said.stderr == (
        "error: no device is called 'jetson': none is configured\n  fix: deploykit devices add jetson ssh://USER@HOST\n"
    )


def test_this_machine_has_nothing_to_clean(server: Server) -> None:
    said = deploykit("devices", "clean", "local")

    assert said.returncode == 2
    assert said.stderr.startswith("error: 'local' is this machine: nothing is kept beside the store\n")


def test_build_check_and_bench_work_there_one_after_the_other(
    named: str, line: "Line", server: Server, tmp_path: Path
) -> None:
    shutil.copytree(line.snapshot, tmp_path / ".deploykit")

    for step in (
        ("build", "--variant", "int8"),
        ("check",),
        ("bench", "--rounds", "3", "--runs", "5", "--allow-invalid"),
    ):
        said = deploykit(*step, "--device", named)

        assert said.returncode == 0, said.stderr
        assert re.search(r"^device +board$", said.stdout, re.M), said.stdout

    measured = json.loads(deploykit(*step, "--device", named, "--json").stdout)
    assert measured["measurements"][0]["label"] == "int8 · onnxruntime"
    assert [entry.name for entry in (server.cache / "sessions").iterdir()] == [".lock"]


def test_ctrl_c_ends_the_worker_there_and_clears_up(named: str, line: "Line", server: Server, tmp_path: Path) -> None:
    shutil.copytree(line.snapshot, tmp_path / ".deploykit")
    words = [sys.executable, "-m", "deploy_kit", "bench", "--device", named, "--rounds", "1000", "--runs", "20000"]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=heed_interrupts
    )
    assert process.stderr is not None
    while "in turns" not in process.stderr.readline():
        assert process.poll() is None
    workers = [pid for pid in descendants(server.process.pid) if b"deploy_kit.programs.worker" in command(pid)]
    assert workers

    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[1]

    assert process.returncode == 130, rest
    assert not [pid for pid in workers if command(pid)]
    assert [entry.name for entry in (server.cache / "sessions").iterdir()] == [".lock"]


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started with it ignored


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_connection_that_is_cut_in_a_bench_is_told_and_the_rounds_before_it_are_kept(
    board: Device, line: "Line", server: Server, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(line.snapshot, store.root, dirs_exist_ok=True)
    engine = line.built("int8", "onnxruntime")

    def cut(event: ProgressEvent) -> None:
        if event.done == 1:
            server.cut()

    with links.connect_device(board) as connection:
        found, _ = bench.run((engine,), line.recipe.bench, Context(store=store, connection=connection, on_progress=cut))

    assert found.stopped == "the device was lost in round 2 of 3: device 'board': the connection was lost"
    assert [len(m.rounds) for m in found.measurements] == [1]
    with links.connect_device(board):
        assert until(lambda: len(server.sessions()) == 1)
