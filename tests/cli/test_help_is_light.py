"""Help loads nothing heavy: looked at in fresh processes, through the modules that are there at the end."""

import subprocess
import sys

import pytest

from deploy_kit.cli import CATALOGUE

HEAVY = {
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt_rtx",
    "numpy",
    "pydantic",
    "rich",
    "PIL",
    "safetensors",
    "yaml",
}
PROBE = """
import sys
{before}
sys.argv = ["deploykit", *{arguments!r}]
from deploy_kit.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
sys.stderr.write(" ".join(sys.modules))
"""


def loaded(*arguments: str, before: str = "") -> set[str]:
    """Run the command line in a fresh process and give the heavy packages that it loaded."""
    probe = PROBE.format(before=before, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return HEAVY & {name.partition(".")[0] for name in ended.stderr.split()}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_first_help_loads_nothing_heavy(option: str) -> None:
    assert loaded(option) == set()


@pytest.mark.parametrize("command", CATALOGUE.names())
def test_the_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    # typer 0.29 itself loads a first part of pydantic to read a command's options.
    assert loaded(command, "--help") <= {"pydantic"}


def test_a_command_loads_no_other_command() -> None:
    probe = PROBE.format(before="", arguments=["store", "list", "-h"])

    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    named = {f"deploy_kit.cli.{name}" for name in CATALOGUE.names()}
    assert named & set(ended.stderr.split()) == {"deploy_kit.cli.store"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    probe = "import sys, deploy_kit; print(*sys.modules)"

    names = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert HEAVY & {name.partition(".")[0] for name in names} == set()


def test_a_heavy_import_would_be_noticed() -> None:
    assert loaded("--help", before="import numpy.linalg") == {"numpy"}
