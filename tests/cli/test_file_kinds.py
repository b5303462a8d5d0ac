"""Files that ``lint``, ``inspect`` or ``compare`` do not take are named, with the command that takes them."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from bundle_making import pack
from command_line import deploykit
from delivered_files import delivered
from page_records import page_report
from PIL import Image
from report_records import parity

from deploy_kit import recipe
from deploy_kit.recipe import Recipe
from deploy_kit.records import codec
from deploy_kit.stages import report

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

WANTED = {
    "lint": "an ONNX file",
    "inspect": "a checkpoint, graph, engine or bundle",
    "compare": "the record of a bench or a report",
}


@pytest.fixture(scope="module")
def desk(line: "Line", tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "photo.jpg")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("cat/0.png", b"")
    np.savez(folder / "images.npz", images=np.zeros((1, 16, 16), np.uint8))
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(tiny))
    (folder / "sweep.yaml").write_text("name: all\nengines: [onnxruntime]\nvariants: [fp32]\n")
    report.run(page_report(), folder)
    (folder / "run.json").write_text(json.dumps({"measurements": []}))
    (folder / "check.json").write_text(json.dumps(codec.to_json(parity("int8 · onnxruntime"))))
    torch.save({}, folder / "best.pth")
    shutil.copy(line.recipe.source.checkpoint, folder / "best.safetensors")
    delivered(line, "int8", "onnxruntime", folder)
    delivered(line, "fp32", "openvino", folder)
    pack(line, "fp32", "onnxruntime", folder / "bundle.zip")
    return folder


KINDS = [
    ("photo.jpg", "an image", "", "deploykit check ENGINE --images {desk}"),
    ("photos.zip", "a zip archive of images", "", "unpack it: deploykit check ENGINE --images FOLDER"),
    ("images.npz", "an npz file of arrays", "", "deploykit check ENGINE --images {file}"),
    ("tiny.yaml", "a recipe", "", "deploykit run {file}"),
    ("sweep.yaml", "a sweep", "", "deploykit sweep {file}"),
    ("report.json", "a report", "compare", "deploykit report {file}"),
    ("run.json", "the record of a bench", "compare", "deploykit compare {file} OTHER.json"),
    ("check.json", "the record of a check", "", ""),
    ("best.pth", "a zip archive, as checkpoints are", "inspect", "deploykit inspect {file}"),
    ("best.safetensors", "a checkpoint", "inspect", "deploykit export {file}"),
    ("best-int8.onnx", "an ONNX file", "lint inspect", "deploykit inspect {file}"),
    ("best-fp32.xml", "an engine", "inspect", "deploykit inspect {file}"),
    ("best-int8.onnx.passport.json", "a passport", "inspect", "deploykit inspect {desk}/best-int8.onnx"),
    ("bundle.zip", "a bundle", "inspect", "deploykit inspect {file}"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "taken_by", "fix"), KINDS, ids=[kind[0] for kind in KINDS])
def test_a_file_of_another_kind_is_named_with_the_command_that_takes_it(
    desk: Path, name: str, kind: str, taken_by: str, fix: str
) -> None:
    for command in WANTED.keys() - set(taken_by.split()):
        more = (desk / "report.json",) if command == "compare" else ()

        said = deploykit(command, *more, desk / name)

        assert (said.code, said.error) == (2, f"error: {desk / name}: expected {WANTED[command]}, found {kind}")
        assert fix.format(desk=desk, file=desk / name) in said.fix


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "taken_by", "fix"), KINDS, ids=[kind[0] for kind in KINDS])
def test_the_command_that_is_named_takes_it(desk: Path, name: str, kind: str, taken_by: str, fix: str) -> None:
    for command in taken_by.split():
        more = (desk / "report.json",) if command == "compare" else ()

        assert ", found " + kind not in deploykit(command, *more, desk / name).err
    if fix.startswith("deploykit inspect") and name != "best.pth":  # it holds nothing
        assert deploykit("inspect", fix.format(desk=desk, file=desk / name).split()[-1]).code == 0
    if kind == "a recipe":
        assert deploykit("run", desk / name, "--dry-run").code == 0


@pytest.mark.slow
def test_two_engines_are_compared_by_a_bench(desk: Path) -> None:
    pair = (desk / "best-int8.onnx", desk / "bundle.zip")

    said, mixed = deploykit("compare", *pair), deploykit("compare", pair[0], desk / "report.json")

    assert f"deploykit inspect {pair[0]}, or their latencies: deploykit bench {pair[0]} {pair[1]}" in said.fix
    assert "bench" not in mixed.fix


@pytest.mark.slow
def test_a_file_of_no_known_kind_keeps_the_message_of_who_read_it(desk: Path) -> None:
    (desk / "notes.txt").write_text("nothing")

    assert "not a whole ONNX file" in deploykit("lint", desk / "notes.txt").error
    assert "not a recognised checkpoint container: plain text" in deploykit("inspect", desk / "notes.txt").error
    assert "expected a run, found none" in deploykit("compare", desk / "notes.txt", desk / "report.json").error
