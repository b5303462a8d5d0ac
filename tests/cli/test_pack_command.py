"""`deploykit pack`: what it packs, what it does not, and how it says so."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from command_line import deploykit
from delivered_files import delivered
from PIL import Image

from deploy_kit import recipe
from deploy_kit.graph import onnx_file
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
STATED = ("--input", "16x16", "--mean", "0.5", "--std", "0.25")
pytestmark = pytest.mark.slow


def test_the_newest_engine_is_packed_and_verifies(kept: Store, tmp_path: Path) -> None:
    said = deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle.zip", "--name", "mine", "--json")

    assert said.code == 0, said.err
    manifest = json.loads(said.out)
    assert (manifest["name"], manifest["engine"]["name"], manifest["precision"]) == ("mine", "onnxruntime", "int8")
    assert f"next: deploykit verify {tmp_path / 'bundle.zip'}" in said.err
    assert deploykit("verify", tmp_path / "bundle.zip").code == 0


def test_without_triton_a_bundle_holds_its_engine_once_and_verifies(kept: Store, tmp_path: Path) -> None:
    said = deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle", "--no-triton")

    assert said.code == 0, said.err
    assert [file.name for file in (tmp_path / "bundle").rglob("*.onnx")] == ["model.onnx"]
    assert "tritonserver" not in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert deploykit("verify", tmp_path / "bundle").code == 0


def test_a_variant_is_chosen_by_name_and_one_that_is_not_there_is_said(kept: Store, tmp_path: Path) -> None:
    said = deploykit("pack", "--store", kept.root, "--variant", "fp32", "-o", tmp_path / "bundle", "--json")
    assert json.loads(said.out)["precision"] == "fp32"

    said = deploykit("pack", "--store", kept.root, "--variant", "int4", "-o", tmp_path / "other")
    assert said.code == 2
    assert "'int4 · any engine' was not built here yet" in said.error
    assert not (tmp_path / "other").exists()


def judged_by(kept: Store, tmp_path: Path, **limits: float) -> Path:
    """Write the recipe in force with other limits for int8."""
    entry = kept.in_force()
    assert entry is not None
    data = {**entry.recipe, "check": {**entry.recipe["check"], "limits": {"int8": limits}}}
    path = tmp_path / "strict.yaml"
    path.write_text(recipe.dump_recipe(recipe.parse_recipe(data)), encoding="utf-8")
    return path


def test_what_breaks_a_limit_is_not_packed(kept: Store, tmp_path: Path) -> None:
    strict = judged_by(kept, tmp_path, min_sqnr_db=300.0)

    said = deploykit("pack", "--store", kept.root, "--recipe", strict, "-o", tmp_path / "bundle", "--allow-undecided")

    assert said.code == 1
    assert "int8 · onnxruntime: not packed: rejected: SQNR" in said.out
    assert not (tmp_path / "bundle").exists()


def test_what_the_images_leave_open_is_packed_only_knowingly(kept: Store, tmp_path: Path) -> None:
    strict = judged_by(kept, tmp_path, max_drop=0.5)
    call = ("pack", "--store", kept.root, "--recipe", strict, "-o", tmp_path / "bundle")

    said = deploykit(*call)
    assert said.code == 6
    assert "not packed: undecided: too few images to tell" in said.out

    assert deploykit(*call, "--allow-undecided").code == 0
    assert "| accuracy | undecided: too few images to tell" in (tmp_path / "bundle" / "README.md").read_text()


def test_an_engine_of_another_export_is_said_to_be_one(kept: Store, line: "Line", tmp_path: Path) -> None:
    place = ("--store", kept.root, "--recipe", judged_by(kept, tmp_path))
    stated = ("--input", "16x16", "--mean", "0.25", "--std", "0.25")
    assert deploykit("export", line.recipe.source.checkpoint, *stated, *place).code == 0
    assert deploykit("build", "--engine", "onnxruntime", "--store", kept.root).code == 0

    said = deploykit("pack", "--variant", "int8", "--store", kept.root, "-o", tmp_path / "bundle")

    assert said.code == 2
    assert "'int8 · any engine' was built here of another export than the newest, which has: images" in said.error
    assert "with mean 0.25 and std 0.25" in said.error and "with mean 0.5 and std 0.25" in said.fix


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--name", "a/b"), "name: expected letters"),
        (("--golden", "0"), "expected 1 to 256, found 0"),
        (("--sign", "nowhere.pem"), "nowhere.pem: no such key"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    kept: Store, tmp_path: Path, more: tuple[str, str], said: str
) -> None:
    found = deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle", *more)

    assert found.code == 2
    assert said in found.error


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_delivered_file_is_packed_by_its_passport(line: "Line", tmp_path: Path, engine: str) -> None:
    file = delivered(line, "int8", engine, tmp_path)
    place = ("--store", tmp_path / "store", "-o", tmp_path / "bundle")

    said = deploykit("pack", file, "--images", line.recipe.check.images, *place, "--json")

    assert said.code == 0, said.err
    manifest = json.loads(said.out)
    assert (manifest["engine"]["name"], manifest["precision"], manifest["images"]["n"]) == (engine, "int8", 24)
    assert manifest["checkpoint"]["architecture"] == "DenseNet-BC-11 (k = 4)"
    assert manifest["name"].count(manifest["checkpoint"]["name"].split(".")[0]) == 1
    assert manifest["engine"]["graph_sha256"] == line.graph("int8").sha256
    assert deploykit("verify", tmp_path / "bundle").code == 0


def test_a_files_limit_on_the_drop_is_asked_for_and_judged(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "onnxruntime", tmp_path)
    place = ("--images", line.recipe.check.images, "--store", tmp_path / "store", "-o", tmp_path / "bundle")

    free = deploykit("pack", file, *place)
    limited = deploykit("pack", file, *place, "--max-drop", "0.1pt", "-o", tmp_path / "other")

    assert free.code == 0
    assert "no limit on the drop of accuracy is set: --max-drop 0.5pt sets one" in free.err
    assert limited.code == 6
    assert "not packed: undecided: too few images to tell" in limited.out
    assert not (tmp_path / "other").exists()


def test_a_foreign_file_is_packed_once_its_input_and_its_checkpoint_are_said(line: "Line", tmp_path: Path) -> None:
    model = onnx.load(line.store.path(line.lean))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    call = ("pack", tmp_path / "foreign.onnx", "--store", tmp_path / "store", "-o", tmp_path / "bundle")
    against, images = ("--against", line.recipe.source.checkpoint), ("--images", line.recipe.check.images)

    for more, error, fix in (
        ((*against, *STATED), "no images to check on", "give --images FOLDER"),
        ((*against, *images), "nothing says how an image becomes its input", "give --input, --mean and --std"),
        ((*STATED, *images), "are about an engine's file, and none is given", "--against CHECKPOINT --images FOLDER"),
        (
            ("--min-top1", "50%"),
            "are about an engine's file, and none is given",
            "--against CHECKPOINT --images FOLDER",
        ),
        (("--against", "labels", *STATED, *images), "labels are none", "--against CHECKPOINT, or the ONNX file"),
        ((*against, *STATED, *images, "--variant", "int8"), "--variant is about engines of the store", "leave out"),
    ):
        said = deploykit(*call, *more)
        assert (said.code, error in said.error, fix in said.fix) == (2, True, True), said.err
    assert not (tmp_path / "bundle").exists()

    said = deploykit(*call, *against, *STATED, *images)
    assert said.code == 0, said.err
    assert deploykit("verify", tmp_path / "bundle").code == 0


def test_an_ir_that_does_not_state_its_input_is_packed_from_its_onnx_file(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "openvino", tmp_path)
    file.with_name(file.name + ".passport.json").unlink()
    model = tmp_path / "model.onnx"
    model.write_bytes(line.store.path(line.graph("int8")).read_bytes())
    images, store = ("--images", line.recipe.check.images), ("--store", tmp_path / "store")
    against = ("--against", line.recipe.source.checkpoint, *STATED)

    said = deploykit("pack", file, *images, *store, *against, "-o", tmp_path / "bundle")
    assert said.code == 2
    assert "a passport that states its inputs and outputs is not with the file" in said.error

    first, second = said.fix.removeprefix("  fix: of its ONNX file: ").split(", then ")
    for command, more in ((first.replace("NAME", "openvino"), ()), (second, ("-o", tmp_path / "bundle"))):
        words = command.replace("model.onnx", str(model)).replace("FOLDER", line.recipe.check.images).split()[1:]
        found = deploykit(*words, *store, *more)
        assert found.code == 0, found.err
    assert deploykit("verify", tmp_path / "bundle").code == 0


def test_names_of_image_folders_are_in_the_bundles_onnx_file(line: "Line", tmp_path: Path) -> None:
    names = ("ant", "bee", "cat", "dog")
    with np.load(line.recipe.check.images) as data:
        for index, (pixels, label) in enumerate(zip(data["images"], data["labels"], strict=True)):
            (tmp_path / "val" / names[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "val" / names[label] / f"{index}.png")
    file, place = delivered(line, "int8", "onnxruntime", tmp_path), ("--store", tmp_path / "store")

    said = deploykit("pack", file, "--images", tmp_path / "val", *place, "-o", tmp_path / "bundle", "--allow-undecided")

    assert said.code == 0, said.err
    assert onnx_file.classes(onnx_file.load(file)) == ()
    assert onnx_file.classes(onnx_file.load(tmp_path / "bundle" / "model.onnx")) == names
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["classes"] == list(names)
    assert deploykit("verify", tmp_path / "bundle").code == 0


@pytest.mark.parametrize("ending", ["", ".zip"])
def test_a_bundle_is_checked_on_its_golden_images_labels_or_a_checkpoint(
    kept: Store, line: "Line", tmp_path: Path, ending: str
) -> None:
    bundle, store = tmp_path / f"bundle{ending}", ("--store", tmp_path / "store")
    assert deploykit("pack", "--store", kept.root, "-o", bundle, "--name", "mine").code == 0
    images, checkpoint = line.recipe.check.images, line.recipe.source.checkpoint

    golden = deploykit("check", bundle, *store, "--json")
    labels = deploykit("check", bundle, *store, "--against", "labels", "--images", images, "--json")
    full = deploykit(
        "check", bundle, *store, "--against", checkpoint, "--images", images, "--max-drop", "60pt", "--json"
    )

    found = [json.loads(said.out) for said in (golden, labels, full)]
    assert [said.code for said in (golden, labels, full)] == [0, 6, 0]  # labels without a limit decide nothing
    assert [one["label"] for one in found] == ["mine · onnxruntime"] * 3
    assert [one["n"] for one in found] == [8, 24, 24]
    assert (found[0]["against"], found[0]["images"]) == (f"golden outputs of {bundle}", f"golden images of {bundle}")
    assert found[1]["against"].startswith("labels alone")
    assert found[0]["agreement"] == 1.0
    assert found[0]["limits"]["min_sqnr_db"] == 15

    inspected = deploykit("inspect", bundle, "--json")
    facts = json.loads(inspected.out)
    assert facts["passport"]["origin"]["checkpoint"] == Path(checkpoint).name
    assert ["bundle", "mine"] in facts["facts"] and dict(facts["facts"])["precision"] == "int8"


def test_a_bundle_that_was_changed_is_not_checked(kept: Store, tmp_path: Path) -> None:
    assert deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle").code == 0
    file = tmp_path / "bundle" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    said = deploykit("check", tmp_path / "bundle", "--store", tmp_path / "store")

    assert (said.code, "model.onnx: changed since it was packed" in said.error) == (2, True), said.err
    assert not (tmp_path / "store").exists()

    file.unlink()
    inspected = deploykit("inspect", tmp_path / "bundle", "--json")
    found = json.loads(inspected.out)
    assert ["remark", "model.onnx: missing"] in found["facts"], inspected.err
    assert found["passport"] is None
