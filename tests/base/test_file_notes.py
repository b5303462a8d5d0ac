"""Tests of the notes that programs find without parsing an ONNX file."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy_kit import delivery
from deploy_kit.base import file_notes


@pytest.mark.parametrize("key", [file_notes.SUMS_FIT, "deploykit.preprocess", ""])
def test_a_note_is_found_in_the_file_that_has_it(key: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph)
    if key:
        helper.set_model_props(model, {key: "1", "other": "2"})
    onnx.save(model, tmp_path / "model.onnx")

    assert file_notes.sums_fit(tmp_path / "model.onnx") is (key == file_notes.SUMS_FIT)


def test_an_empty_file_and_none_have_no_note(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()

    assert not file_notes.sums_fit(tmp_path / "empty.onnx")
    assert not file_notes.sums_fit(tmp_path / "missing.onnx")


@pytest.mark.parametrize("program", ["engine.py", "cpp/classify.cpp"])
def test_bundles_programs_look_for_the_same_note(program: str) -> None:
    files = Path(delivery.__file__).parent / "files" / "onnxruntime"

    assert f'"{file_notes.SUMS_FIT}"' in (files / program).read_text(encoding="utf-8")
