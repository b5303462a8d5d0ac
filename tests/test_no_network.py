"""A whole run talks to nobody: every process of it is watched for sockets, by Python's audit events and by strace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_densenet import tiny_recipe

from deploy_kit import recipe
from deploy_kit.recipe import BuildEntry

# Loaded by every Python process that finds it on its path.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments
        if not isinstance(address, (str, bytes)):
            with open(os.environ["WATCHED"], "a") as file:
                file.write(f"{event} {address}\\n")
sys.addaudithook(watch)
"""


@pytest.mark.slow
def test_a_whole_run_asks_the_network_for_nothing(tmp_path: Path) -> None:
    chosen = tiny_recipe(tmp_path)
    engines = tuple(BuildEntry(engine=name, variants=("fp32",)) for name in ("onnxruntime", "openvino"))
    chosen = chosen.model_copy(update={"build": chosen.build.model_copy(update={"engines": engines})})
    (tmp_path / "tiny.yaml").write_text(recipe.dump_recipe(chosen))
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "home").mkdir()
    traced = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmmsg", "-o", tmp_path / "calls"]
    paths = os.pathsep.join([str(tmp_path / "watch"), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-m", "deploy_kit", "run", tmp_path / "tiny.yaml", "--allow-invalid"]

    process = subprocess.run(
        [*(traced if shutil.which("strace") else []), *line, "--store", tmp_path / "store", "--out", tmp_path / "out"],
        env=os.environ | {"PYTHONPATH": paths, "WATCHED": str(tmp_path / "seen"), "HOME": str(tmp_path / "home")},
        capture_output=True,
        check=False,
    )

    assert process.returncode in (0, 1), process.stderr.decode()
    assert not (tmp_path / "seen").exists(), (tmp_path / "seen").read_text()
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert [call for call in calls if "AF_INET" in call] == []
    assert not (tmp_path / "home" / "intel").exists()


def test_the_watch_sees_a_process_that_asks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "WATCHED": str(tmp_path / "seen")}
    script = "import socket\ntry:\n  socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"

    subprocess.run([sys.executable, "-c", script], env=environment, check=True)

    assert "socket.connect ('127.0.0.1', 9)" in (tmp_path / "seen").read_text()
