"""Tests of the commands on ONNX files of other programs: one question, one flag that answers it, and no traceback."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import small_cnns
from command_line import deploykit
from tiny_densenet import save_tiny, tiny_model

COMMANDS = {
    "inspect": lambda path: ["inspect", path],
    "lint": lambda path: ["lint", path, "--target", "onnxruntime"],
    "export": lambda path: ["export", path],
}
BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    "functions that double 26 times": lambda: small_cnns.with_function(26),
    "an input of 2^60 pixels": lambda: small_cnns.open_sizes(1, 3, 2**30, 2**30),
}


def test_several_outputs_are_asked_about_and_the_named_flag_answers(tmp_path: Path) -> None:
    path, store = small_cnns.saved(small_cnns.two_outputs(), tmp_path), tmp_path / "store"

    asked = deploykit("export", path, "--store", store)
    answered = deploykit("export", path, "--output", "logits", "--store", store)

    assert (asked.code, answered.code) == (2, 0)
    assert "expected one output, found 2: aux, logits" in asked.err and "--output aux" in asked.err
    assert "output 'logits' kept, left out: aux" in answered.out


def test_open_size_is_asked_about_and_the_named_flag_answers(tmp_path: Path) -> None:
    path, store = small_cnns.saved(small_cnns.open_sizes(), tmp_path), tmp_path / "store"

    asked = deploykit("export", path, "--store", store)
    answered = deploykit("export", path, "--input", "12x12", "--store", store)

    assert (asked.code, answered.code) == (2, 0)
    assert "--input 224x224" in asked.err
    assert "open input ['N', 3, 'H', 'W'] → ['N', 3, 12, 12]" in answered.out


def test_output_is_no_flag_of_checkpoints(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "tiny.safetensors", tiny_model())

    said = deploykit("export", path, "--output", "logits", "--store", tmp_path / "store")

    assert said.code == 2
    assert "is no ONNX file: 'output' would change nothing" in said.err and "--head NAME" in said.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_refused_by_every_command(bomb: str, command: str, tmp_path: Path) -> None:
    path = small_cnns.saved(BOMBS[bomb](), tmp_path)

    said = deploykit(*COMMANDS[command](path))

    assert said.code == 2
    assert "Traceback" not in said.err and str(path) in said.err
