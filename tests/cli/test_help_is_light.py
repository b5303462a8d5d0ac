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
from deploy_kit.cli import main
for line in {lines!r}:
    sys.argv = ["deploykit", *line]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    print(" ".join(sys.modules), file=sys.stderr)
"""


def loaded_after(lines: list[tuple[str, ...]], before: str = "") -> list[set[str]]:
    """Run command lines one after the other in a fresh process; list the modules that are loaded after each."""
    probe = PROBE.format(before=before, lines=lines)
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return [set(modules.split()) for modules in ended.stderr.splitlines()]


def heavy(modules: set[str]) -> set[str]:
    return HEAVY & {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_first_help_loads_nothing_heavy(option: str) -> None:
    assert heavy(*loaded_after([(option,)])) == set()


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    commands = CATALOGUE.names()

    found = dict(zip(commands, loaded_after([(command, "--help") for command in commands]), strict=True))

    # typer 0.29 itself loads a first part of pydantic to read a command's options.
    assert {command: names for command, modules in found.items() if (names := heavy(modules) - {"pydantic"})} == {}


def test_a_command_loads_no_other_command() -> None:
    (modules,) = loaded_after([("store", "list", "-h")])

    named = {f"deploy_kit.cli.{name}" for name in CATALOGUE.names()}
    assert named & modules == {"deploy_kit.cli.store"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    probe = "import sys, deploy_kit; print(*sys.modules)"

    names = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert heavy(set(names)) == set()


def test_a_heavy_import_would_be_noticed() -> None:
    assert heavy(*loaded_after([("--help",)], before="import numpy.linalg")) == {"numpy"}
