"""The zip application: the same bytes each time, and nothing in it that a device does not have."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy_kit import engines
from deploy_kit.devices import zip_application
from deploy_kit.records import codec
from deploy_kit.records.measurements import Environment

HOST_ONLY = {
    "pydantic",
    "yaml",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "typer",
    "PIL",
    "torch",
    "rich",
    "fabric",
}


@pytest.fixture
def pyz(tmp_path: Path) -> Path:
    path = tmp_path / "deploykit.pyz"
    path.write_bytes(zip_application.zip_bytes())
    return path


@pytest.fixture
def numpy_alone(tmp_path: Path) -> Path:
    """A folder with numpy and nothing else."""
    folder = tmp_path / "numpy-alone"
    folder.mkdir()
    packages = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (packages / name).is_dir():
            (folder / name).symlink_to(packages / name)
    return folder


def bare(pyz: Path, numpy_alone: Path, script: str, words: str = "") -> str:
    """Run a script in a Python that has the zip application and numpy, and no site-packages."""
    start = f"import sys; sys.path[:0] = [{str(pyz)!r}, {str(numpy_alone)!r}]\n"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + script], input=words, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_same_files_give_the_same_bytes() -> None:
    assert zip_application.zip_bytes.__wrapped__() == zip_application.zip_bytes()


@pytest.mark.slow
def test_the_worker_describes_its_machine_with_numpy_alone(pyz: Path, numpy_alone: Path) -> None:
    answer = bare(
        pyz,
        numpy_alone,
        "from deploy_kit.programs import worker; worker.main()",
        '{"op": "environment", "arguments": {}}\n',
    )

    there = codec.from_json(Environment, json.loads(answer)["result"]["environment"])
    assert dict(there.versions)["python"] == sys.version.split()[0]


@pytest.mark.slow
def test_the_worker_and_every_engine_load_nothing_of_the_hosts(pyz: Path, numpy_alone: Path) -> None:
    script = """
from deploy_kit import engines
from deploy_kit.programs import agent, worker
print(*engines.CATALOGUE.names())
for name in engines.CATALOGUE.names():
    engines.CATALOGUE.get(name)
print(*sys.modules)
"""
    names, modules = bare(pyz, numpy_alone, script).splitlines()

    assert tuple(names.split()) == engines.CATALOGUE.names()
    assert {name.split(".")[0] for name in modules.split()} & HOST_ONLY == set()


@pytest.mark.slow
def test_an_absent_engine_is_named_with_what_a_device_installs(pyz: Path, numpy_alone: Path) -> None:
    job = {"op": "open", "arguments": {"engine": "onnxruntime", "path": "model.onnx", "options": {}}}

    answer = json.loads(
        bare(pyz, numpy_alone, "from deploy_kit.programs import worker; worker.main()", json.dumps(job) + "\n")
    )

    wanted = "engine 'onnxruntime' needs the package 'onnxruntime', which is not installed here"
    assert answer["error"] == wanted
    # Where the system's packages manage its Python, the line makes an environment first.
    assert re.fullmatch(r"(python3 -m venv .* -m )?pip install 'onnxruntime'", answer["hint"])


def test_the_agent_needs_the_standard_library_alone(pyz: Path, tmp_path: Path) -> None:
    modules = bare(pyz, tmp_path / "nothing", "from deploy_kit.programs import agent; print(*sys.modules)").split()

    assert "numpy" not in modules
