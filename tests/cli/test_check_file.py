"""``check FILE``: delivered and foreign engines, against a checkpoint, golden outputs, or labels alone."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from command_line import Said, deploykit
from delivered_files import delivered
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny_densenet import TINY_PREPROCESS, save_images, save_tiny, tiny_model

from deploy_kit import images
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.cli import _given_engine
from deploy_kit.delivery import contents
from deploy_kit.devices import inference
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.parity import LabelScore
from deploy_kit.records.passports import mismatch, read_passport, sealed

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "tiny_bundles"]

STATED = ("--input", "16x16", "--mean", "0.5", "--std", "0.25")


def check(file: Path, line: "Line", *more: str | Path) -> Said:
    images = () if "--golden" in more else ("--images", line.recipe.check.images)
    return deploykit("check", file, *images, "--store", file.parent / "store", "--quiet", *more)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_delivered_engine_is_judged_as_in_the_store_against_the_checkpoint_of_its_passport(
    line: "Line", tmp_path: Path, engine: str
) -> None:
    file = delivered(line, "int8", engine, tmp_path)

    said = check(file, line, "--max-drop", "60pt", "--json")

    found = json.loads(said.out)
    assert said.code == 0, said.err
    assert (found["label"], found["n"]) == (f"best-int8 · {engine}", 24)
    checkpoint = line.exported.checkpoint
    assert (found["against"], found["remarks"]) == (f"{checkpoint.name}, sha256 {checkpoint.sha256}", [])
    assert found["limits"]["min_sqnr_db"] == 15  # the default recipe's for the precision in the passport


@pytest.mark.slow
def test_a_foreign_file_is_judged_once_its_input_is_said(line: "Line", tmp_path: Path) -> None:
    model = onnx.load(line.store.path(line.lean))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    against = ("--against", line.recipe.source.checkpoint)

    silent = check(tmp_path / "foreign.onnx", line, *against)
    said = check(tmp_path / "foreign.onnx", line, *against, *STATED)

    assert (silent.code, silent.fix.split(" ")[3]) == (2, "give"), silent.err
    assert "nothing says how an image becomes its input" in silent.error
    assert said.code == 0, said.err
    assert "accuracy" in said.out and "accepted (SQNR ≥ 90 dB)" in said.out


@pytest.mark.slow
def test_an_ir_without_a_passport_tells_its_precision_itself(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "openvino", tmp_path)
    file.with_name(file.name + ".passport.json").unlink()

    said = check(file, line, "--against", line.recipe.source.checkpoint, *STATED, "--max-drop", "60pt", "--json")

    assert said.code == 0, said.err
    assert json.loads(said.out)["limits"]["min_sqnr_db"] == 15


@pytest.mark.slow
def test_a_drop_is_held_to_the_limit_of_the_passport_and_without_one_is_left_open(line: "Line", tmp_path: Path) -> None:
    free = delivered(line, "int8", "onnxruntime", tmp_path / "free")
    held = delivered(line, "int8", "onnxruntime", tmp_path / "held", max_drop=60.0)
    unlabelled = tmp_path / "unlabelled.npz"
    with np.load(line.recipe.check.images) as data:
        np.savez(unlabelled, images=data["images"])

    undecided, kept, given = check(free, line), check(held, line), check(held, line, "--max-drop", "0.1pt")
    without = [deploykit("check", f, "--images", unlabelled, "--store", tmp_path / "store") for f in (free, held)]

    assert (undecided.code, "no limit on the drop of accuracy is set: --max-drop" in undecided.out) == (6, True)
    assert (kept.code, "drop ≤ 60 points" in kept.out) == (0, True), kept.out
    assert "the limit is its passport's: drop ≤ 60 points" in kept.out
    assert (given.code, "drop ≤ 0.1 points" in given.out, "its passport's" in given.out) == (6, True, False)
    assert [said.code for said in without] == [0, 0], without[1].out  # nothing measures a drop


@pytest.mark.slow
def test_a_quantized_file_measures_no_loss(line: "Line", tmp_path: Path) -> None:
    other = onnx.load(line.store.path(line.graph("int8")))
    other.doc_string = "other bytes"
    onnx.save(other, tmp_path / "other.onnx")
    call = ("--against", tmp_path / "other.onnx", "--max-drop", "60pt")

    said = check(delivered(line, "int8", "onnxruntime", tmp_path), line, *call)

    assert said.code == 6, said.out
    assert "what it is compared with is quantized itself" in said.out


@pytest.mark.slow
def test_a_passport_without_its_own_hash_leaves_the_check_open(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)
    passport = file.with_name(file.name + ".passport.json")
    data = json.loads(passport.read_text())
    del data["record_sha256"]
    passport.write_text(json.dumps(data))

    said, inspected = check(file, line), deploykit("inspect", file)

    why = f"its passport, {passport.name}, has no record_sha256: a change of it could not be seen"
    assert (said.code, f"undecided: {why}" in said.out) == (6, True), said.out
    assert re.search(rf"^remark +{re.escape(why)}$", inspected.out, re.MULTILINE)


def test_what_a_plan_needs_beside_it_is_no_passport_without_a_hash(line: "Line", tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(line.store.path(line.built("fp32", "onnxruntime")).parent, home)
    main = next(home.glob("*.onnx"))
    main.with_name(main.name + ".passport.json").write_text('{"built": null, "proof": null}')

    assert mismatch(main) == ""


@pytest.mark.slow
def test_stated_preprocessing_is_told_beside_the_file_s_own(line: "Line", tmp_path: Path) -> None:
    call = (delivered(line, "fp32", "onnxruntime", tmp_path), line, "--against", "labels", "--min-top1", "1%")
    said = "the preprocessing is stated, and the file's own is another: images of 16×16 px, gray"

    other, own = check(*call, "--mean", "0", "--std", "1"), check(*call, "--mean", "0.5", "--std", "0.25")

    assert (said in other.out, said in own.out) == (True, False), other.err
    assert re.search(r"^preprocessing +images of 16×16 px.* with mean 0 and std 1$", other.out, re.MULTILINE)


@pytest.mark.slow
def test_another_checkpoint_rejects_it(line: "Line", tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other.safetensors", tiny_model(seed=9))

    said = check(delivered(line, "fp32", "onnxruntime", tmp_path), line, "--against", other)

    assert said.code == 1, said.out
    assert "rejected: SQNR" in said.out


@pytest.mark.slow
def test_a_check_names_its_checkpoint_and_the_other_one_of_the_passport(line: "Line", tmp_path: Path) -> None:
    other, own = save_tiny(tmp_path / "other.safetensors", tiny_model(seed=9)), line.exported.checkpoint
    call = (delivered(line, "fp32", "onnxruntime", tmp_path), line, "--against", other)

    shown, record = check(*call).out, json.loads(check(*call, "--json").out)

    against = f"{other}, sha256 {sha256_of(other)}"
    named = f"its passport names another checkpoint than it was compared with: {own.name}, sha256 {own.sha256}"
    assert (record["against"], record["remarks"][-1]) == (against, named)
    assert re.search(rf"^compared with +{re.escape(against)}$", shown, re.MULTILINE)
    assert re.search(rf"^remark +{re.escape(named)}$", shown, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "code"), [(0.0, 0), (5.0, 1)])
def test_golden_outputs_take_the_place_of_a_checkpoint(line: "Line", tmp_path: Path, wrong: float, code: int) -> None:
    expected = (line.logits() + wrong * np.eye(24, 4)).astype(np.float32)
    with np.load(line.recipe.check.images) as data:
        np.savez(tmp_path / "golden.npz", images=data["images"], logits=expected)

    said = check(delivered(line, "fp32", "onnxruntime", tmp_path), line, "--golden", tmp_path / "golden.npz")

    assert said.code == code, said.out + said.err
    assert f"golden outputs of {tmp_path / 'golden.npz'}\n" in said.out


@pytest.mark.slow
def test_labels_alone_give_an_accuracy_and_its_verdict(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)

    free, strict = (check(file, line, "--against", "labels", *limit) for limit in ((), ("--min-top1", "99%")))

    assert free.code == 6, free.err
    assert "labels alone: what the checkpoint answers is not known" in free.out
    assert "undecided: no limit is set: --min-top1 sets one" in free.out
    assert strict.code == 1, strict.out
    assert "at least 99 % asked for" in strict.out


def score(top1: float, low: float, high: float, limit: float | None, doubts: tuple[str, ...] = ()) -> LabelScore:
    return LabelScore(
        artifact="a", label="b", images="c", n=100, top1=top1, low=low, high=high, top5=None, min_top1=limit,
        doubts=doubts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (score(0.93, 0.91, 0.95, 0.90), "accepted"),
        (score(0.93, 0.91, 0.95, 0.92), "undecided"),
        (score(0.93, 0.91, 0.95, 0.94), "undecided"),
        (score(0.93, 0.91, 0.95, 0.96), "rejected"),
        (score(0.93, 0.91, 0.95, 0.90, ("labels look permuted",)), "undecided"),
        (score(0.30, 0.25, 0.35, 0.90, ("labels look permuted",)), "undecided"),
        (score(0.30, 0.25, 0.35, None), "undecided"),
    ],
)
def test_the_interval_of_an_accuracy_decides(found: LabelScore, word: str) -> None:
    assert found.verdict.word == word


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "nothing to compare with"),
        (("--all",), "--all, --variant and --diagnose are about engines of the store"),
        (("--min-top1", "92"), "--min-top1: expected a share, found '92'"),
        (("--golden", "none.npz", "--against", "labels"), "--golden has images and outputs of its own"),
        (("--against", "labels", "--max-drop", "0.5pt"), "--max-drop: a drop is against a checkpoint"),
        (("--against", "labels", "--every-image"), "--every-image: --against labels scores one label an image"),
        (("--against", "labels", "--input", "32x32"), "--input: alone it changes nothing"),
        (
            ("--against", "labels", "--input", "32x32", "--mean", "0.5", "--std", "0.25"),
            "images of 32x32 px are stated, its input is [1, 1, 16, 16]",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_a_way_out(
    line: "Line", tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    built = line.built("fp32", "onnxruntime")
    shutil.copy(line.store.path(built), tmp_path / "lonely.onnx")

    said = deploykit(
        "check", tmp_path / "lonely.onnx", "--images", line.recipe.check.images, "--store", tmp_path, *more
    )

    assert (said.code, words in said.error, bool(said.fix)) == (2, True, True), said.err


def test_a_misspelt_file_is_said_before_what_else_is_missing(tmp_path: Path) -> None:
    (tmp_path / "best-int8.onnx").touch()

    said = deploykit("check", tmp_path / "best-int.onnx", "--store", tmp_path / "s")

    assert (said.code, said.error) == (2, f"error: {tmp_path / 'best-int.onnx'}: no such file")
    assert said.fix == f"  fix: did you mean '{tmp_path / 'best-int8.onnx'}'?"


def test_a_file_is_not_compared_with_itself(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)

    said = check(file, line, "--against", file)

    assert (said.code, f"--against {file}: is the same file" in said.error) == (2, True), said.err


@pytest.mark.slow
def test_images_that_it_was_calibrated_with_accept_nothing(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "onnxruntime", tmp_path)
    passport = read_passport(file)
    assert passport is not None and passport.origin is not None
    preprocess = passport.preprocess
    assert isinstance(preprocess, Preprocess)
    seen = images.open_set(line.recipe.check.images, preprocess).digest
    origin = dataclasses.replace(passport.origin, calibration="calib", calibration_sha256=seen)
    sealed_again = sealed(dataclasses.replace(passport, origin=origin))
    file.with_name(file.name + ".passport.json").write_text(sealed_again)

    against, alone = check(file, line), check(file, line, "--against", "labels")

    for said in (against, alone):
        assert said.code == 6, said.err
        undecided = next(line for line in said.out.splitlines() if "undecided: " in line)
        assert "it was calibrated on these very images" in undecided


@pytest.mark.slow
def test_a_check_says_that_a_passport_is_not_of_its_file(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)
    shutil.copy(line.store.path(line.built("int8", "onnxruntime")), file)

    said = check(file, line, "--against", line.recipe.source.checkpoint, *STATED)

    assert said.code == 6
    assert "remark               it is not what best-fp32.onnx.passport.json describes" in said.out, said.err


@pytest.mark.slow
def test_another_file_of_the_same_checkpoint_is_not_called_another_checkpoint(line: "Line", tmp_path: Path) -> None:
    file, graph = delivered(line, "int8", "onnxruntime", tmp_path), delivered(line, "fp32", "onnxruntime", tmp_path)

    said = check(file, line, "--against", graph, "--max-drop", "60pt")

    assert said.code == 0, said.err
    assert "it was compared with another file that was made of its checkpoint: " in said.out
    assert "another checkpoint than" not in said.out


@pytest.mark.slow
@pytest.mark.parametrize("against", ["labels", "checkpoint"])
def test_copies_of_a_few_images_accept_nothing(line: "Line", tmp_path: Path, against: str) -> None:
    with np.load(line.recipe.check.images) as data:
        few = {key: np.tile(data[key][:4], (25, *[1] * (data[key].ndim - 1))) for key in ("images", "labels")}
    np.savez(tmp_path / "copies.npz", **few)
    beside = "labels" if against == "labels" else line.recipe.source.checkpoint
    file = delivered(line, "int8", "onnxruntime", tmp_path)

    said = deploykit(
        "check", file, "--images", tmp_path / "copies.npz", "--against", beside, "--store", tmp_path / "store", "-q"
    )

    assert said.code == 6, said.err
    assert (
        "96 of 100 images are copies of others, pixel for pixel: 4 images tell no more"
        in said.out.partition("undecided: ")[2]
    )


@pytest.mark.slow
def test_files_of_other_bytes_with_the_same_pixels_are_copies(line: "Line", tmp_path: Path) -> None:
    with np.load(line.recipe.check.images) as data:
        pixels = data["images"][:4]
    (tmp_path / "val").mkdir()
    for place in range(20):
        note = PngInfo()
        note.add_text("Comment", str(place))
        Image.fromarray(pixels[place % 4]).save(tmp_path / "val" / f"{place}.png", pnginfo=note)
    file = delivered(line, "int8", "onnxruntime", tmp_path)

    said = deploykit("check", file, "--images", tmp_path / "val", "--store", tmp_path / "store", "-q", "--against",
                     line.recipe.source.checkpoint)  # fmt: skip

    assert said.code == 6, said.err
    assert "16 of 20 images are copies of others, pixel for pixel" in said.out.partition("undecided: ")[2]


def test_labels_of_too_few_classes_are_refused_as_they_are_against_a_checkpoint(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(tmp_path / "val" / name / "one.png")

    given = ("--images", tmp_path / "val", "--store", tmp_path / "store", "-q")
    said = [deploykit("check", file, "--against", one, *given) for one in ("labels", line.recipe.source.checkpoint)]

    assert [one.code for one in said] == [2, 2]
    assert said[0].error == said[1].error
    assert "labels of 2 classes, and the checkpoint has" in said[0].error


def test_labels_of_other_classes_are_refused_before_the_engine_runs(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = delivered(line, "fp32", "onnxruntime", tmp_path)
    with np.load(line.recipe.check.images) as data:
        np.savez(tmp_path / "val.npz", images=data["images"], labels=data["labels"] + 1)
    monkeypatch.setattr(inference.LoadedEngine, "all", lambda *_, **__: pytest.fail("the engine ran"))

    said = deploykit(
        "check", file, "--images", tmp_path / "val.npz", "--against", "labels", "--store", tmp_path / "s", "-q"
    )

    assert (said.code, "subtract 1 from every label" in said.fix) == (2, True), said.err


@pytest.mark.slow
@pytest.mark.parametrize("against", ["labels", "checkpoint"])
def test_a_check_names_its_file_and_its_images(line: "Line", tmp_path: Path, against: str) -> None:
    file = delivered(line, "int8", "openvino", tmp_path)
    beside = "labels" if against == "labels" else line.recipe.source.checkpoint
    digest = images.open_set(line.recipe.check.images, TINY_PREPROCESS).digest

    shown, record = (check(file, line, "--against", beside, *more).out for more in ((), ("--json",)))

    found, files = json.loads(record), (file, file.with_suffix(".bin"))
    assert found["files"] == [[one.name, sha256_of(one)] for one in files]
    assert found["images_sha256"] == digest
    rows = [f"sha256 of FILE +{sha256_of(one)}  {re.escape(one.name)}" for one in files]
    for row in (*rows, f"check data sha256 +{digest}"):
        assert re.search(f"^{row}$", shown, re.MULTILINE), shown


@pytest.mark.slow
def test_other_images_than_those_of_the_passport_are_said_to_be_others(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "onnxruntime", tmp_path)
    passport, digest = read_passport(file), images.open_set(line.recipe.check.images, TINY_PREPROCESS).digest
    assert passport is not None and passport.origin is not None
    remarks = []
    for named in (digest, "e" * 64):
        origin = dataclasses.replace(passport.origin, images_sha256=named)
        beside = file.with_name(file.name + ".passport.json")
        beside.write_text(sealed(dataclasses.replace(passport, origin=origin)))
        remarks.append(json.loads(check(file, line, "--json").out)["remarks"])

    others = "the images, their order or their labels are not those of its passport: check data sha256"
    assert remarks == [[], [f"{others} {digest[:12]}…, and there eeeeeeeeeeee…"]]


@pytest.mark.slow
def test_golden_outputs_that_are_the_engine_s_own_are_said_to_be(bundle: Path, line: "Line", tmp_path: Path) -> None:
    file = Path(shutil.copy(bundle / "model.onnx", tmp_path / "mine.onnx"))
    with np.load(bundle / "golden.npz") as data:
        kept = dict(data)
    np.savez(tmp_path / "alone.npz", **kept)
    np.savez(tmp_path / "other.npz", **kept | {"logits": kept["logits"] * np.float32(1.001)})
    calls = [(file, "--golden", one) for one in (bundle / "golden.npz", tmp_path / "alone.npz", tmp_path / "other.npz")]

    said = [check(call[0], line, *call[1:], *STATED, "--json") for call in calls]
    said.append(deploykit("check", bundle, "--store", tmp_path / "store", "--quiet", "--json"))

    own = "the expected outputs are this engine's own: they show that it computes as it did, not its accuracy"
    assert [own in json.loads(one.out)["remarks"] for one in said] == [True, True, False, True]
    assert not any("of its passport" in one for one in json.loads(said[-1].out)["remarks"])


def test_a_manifest_beside_golden_outputs_says_whose_they_are(bundle: Path, line: "Line") -> None:
    with contents.opened(bundle) as opened:
        packed = opened.passport

    mine, other = (
        _given_engine._is_packed_beside(engine, bundle / "golden.npz")
        for engine in (packed, dataclasses.replace(packed, sha256="e" * 64))
    )
    (bundle / "manifest.json").write_text("{}")

    assert (mine, other) == (True, False)
    assert not _given_engine._is_packed_beside(packed, bundle / "golden.npz")


def test_a_folder_is_refused_with_what_takes_a_bundle(tmp_path: Path) -> None:
    said = deploykit("check", tmp_path, "--against", "labels", "--images", tmp_path, "--store", tmp_path / "s")

    assert (said.code, "expected a file, found a folder" in said.error) == (2, True), said.err
    assert "a folder that `deploykit pack` wrote" in said.fix


def test_a_file_of_an_unknown_kind_is_refused(line: "Line", tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"\0" * 64)

    said = deploykit("check", tmp_path / "net.bin", "--images", line.recipe.check.images, "--store", tmp_path / "s")

    assert (said.code, "expected an engine's file" in said.error) == (2, True), said.err
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "pack"])
def test_without_images_those_that_the_passport_names_are_named_where_they_are(
    line: "Line", tmp_path: Path, command: str
) -> None:
    own = line.recipe.check.images
    here = delivered(line, "int8", "onnxruntime", tmp_path / "here", images=own, digest="602516ab" * 8)
    gone = delivered(line, "int8", "onnxruntime", tmp_path / "gone", images="../gone/val")

    said, other = (deploykit(command, file, "--store", tmp_path / "store") for file in (here, gone))

    assert (said.code, other.code) == (2, 2), said.err + other.err
    assert "no images to check on" in said.error
    assert f"  fix: its passport names {own} (602516…): --images {own}" in said.fix
    assert "give --images FOLDER: its passport names ../gone/val, which is not here" in other.fix


def test_options_about_a_file_need_one() -> None:
    said = deploykit("check", "--against", "best.pth")

    assert (said.code, said.fix) == (2, "  fix: deploykit check FILE --against CHECKPOINT")


@pytest.mark.slow
def test_every_engine_is_checked_at_once_and_other_images_neither_stay_nor_export_again(
    line: "Line", kept: "object", tmp_path: Path
) -> None:
    root = kept.root  # type: ignore[attr-defined]
    other = save_images(tmp_path / "other.npz", 12, seed=5)
    exports = sorted((root / "export").iterdir())

    said = deploykit("check", "--all", "--images", other, "--store", root, "--quiet", "--json")
    after = deploykit("check", "--store", root, "--quiet", "--json")

    found = json.loads(said.out)
    assert len(found) >= 2 and {one["n"] for one in found} == {12}
    assert sorted((root / "export").iterdir()) == exports
    assert json.loads(after.out)["images"] == line.recipe.check.images


def test_the_preprocessing_of_the_tests_is_what_is_said() -> None:
    assert (TINY_PREPROCESS.mean, TINY_PREPROCESS.std, TINY_PREPROCESS.height) == ((0.5,), (0.25,), 16)
