"""``bench FILE…``: delivered and foreign files against each other, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from command_line import Said, deploykit
from delivered_files import delivered

from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def bench(folder: Path, *given: str | Path) -> Said:
    short = ("--rounds", "2", "--runs", "5", "--min-iters", "10", "--duration", "10ms", "--warmup", "10ms")
    return deploykit("bench", *given, *short, "--store", folder / "store", "--allow-invalid", "--json", "--quiet")


@pytest.mark.slow
def test_delivered_files_are_measured_against_the_first_of_them(line: "Line", tmp_path: Path) -> None:
    float_file = delivered(line, "fp32", "onnxruntime", tmp_path)
    int8_file = delivered(line, "int8", "onnxruntime", tmp_path)
    (tmp_path / "old").mkdir()
    foreign = Path(shutil.copy(int8_file, tmp_path / "old"))  # of the same name, and without a passport

    said = bench(tmp_path, float_file, int8_file, foreign)

    assert said.code == 0, said.err
    labels = [one["label"] for one in json.loads(said.out)["measurements"]]
    assert labels == ["best-fp32 · onnxruntime", "best-int8 · onnxruntime", "old-best-int8 · onnxruntime"]
    assert Store(tmp_path / "store").in_force() is None  # single steps there take nothing of it


@pytest.mark.slow
def test_a_graph_that_does_not_say_how_images_become_its_input_is_measured_on_noise(
    line: "Line", tmp_path: Path
) -> None:
    model = onnx.load(line.store.path(line.lean))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")

    said = bench(tmp_path, tmp_path / "foreign.onnx")

    assert said.code == 0, said.err
    assert [one["label"] for one in json.loads(said.out)["measurements"]] == ["foreign · onnxruntime"]


def test_an_engine_that_says_nothing_of_its_input_is_refused(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "openvino", tmp_path)
    file.with_name(file.name + ".passport.json").unlink()

    said = bench(tmp_path, file)

    assert (said.code, "nothing says which input it takes" in said.error) == (2, True), said.err
    assert "put its passport beside it" in said.fix


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--all",), "--all and --variant are about engines of the store"),
        (("--variant", "int8"), "--all and --variant are about engines of the store"),
        (("gone.onnx",), "gone.onnx: no such file"),
        (("lonely.onnx",), "given twice"),
    ],
)
def test_a_wrong_request_is_refused(
    line: "Line", tmp_path: Path, more: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(line.store.path(line.built("fp32", "onnxruntime")), tmp_path / "lonely.onnx")

    said = bench(tmp_path, tmp_path / "lonely.onnx", *more)

    assert (said.code, words in said.error, bool(said.fix)) == (2, True, True), said.err
