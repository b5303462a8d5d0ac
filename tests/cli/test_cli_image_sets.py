"""Wrong images on the command line: exit code 2 and words that name the file; with ``--skip-bad`` they are counted."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import deploykit
from PIL import Image
from tiny_densenet import save_images

from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image sets with one fault each."""
    folder = tmp_path_factory.mktemp("desk")
    with np.load(save_images(folder / "whole.npz", 20, seed=7)) as data:
        pixels = data["images"]
    for name in ("jpeg", "png", "labels"):
        (folder / name).mkdir()
        for index, image in enumerate(pixels):
            Image.fromarray(image).save(folder / name / f"{index:02}.png")
    large = Image.fromarray(pixels[0]).resize((256, 256))
    large.save(folder / "jpeg" / "20.jpg", quality=95)
    spoil(folder / "jpeg" / "20.jpg", b"\xff\xc4" * 100)
    cut = (folder / "png" / "03.png").read_bytes()
    (folder / "png" / "03.png").write_bytes(cut[: len(cut) // 2])
    for name, rows in MANIFESTS.items():
        (folder / "labels" / f"{name}.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (folder / "labels" / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    np.savez(folder / "noise.npz", images=np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8))
    np.savez(folder / "scaled.npz", images=pixels // 128)
    np.savez(folder / "float.npz", images=pixels / 255)
    return folder


MANIFESTS = {
    "missing-label": ("00.png,1", "01.png,"),
    "word": ("00.png,1", "01.png,cat", "02.png,0"),
    "gone": ("00.png,1", "gone.png,2"),
    "twice": ("00.png,1", "00.png,1"),
    "range": ("00.png,0", "01.png,4"),
    "empty": (),
}


def spoil(path: Path, with_bytes: bytes) -> None:
    """Write over the middle of a file."""
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + len(with_bytes)] = with_bytes
    path.write_bytes(content)


CHECKS = {
    "jpeg": r"20\.jpg: not a readable image: ",
    "png": r"03\.png: not a readable image: ",
    "labels/missing-label.csv": r"missing-label\.csv: line 3: no label for '01\.png'",
    "labels/word.csv": r"word\.csv: line 3: expected a whole number as label like most lines, found 'cat'",
    "labels/gone.csv": r"gone\.csv: line 3: no such file: .*gone\.png",
    "labels/twice.csv": r"twice\.csv: line 3: '00\.png' is in line 2 already",
    "labels/range.csv": r"range\.csv: 01\.png: label 4, and the checkpoint has 4 classes",
    "labels/empty.csv": r"empty\.csv: expected at least one image, found none",
    "labels/binary.csv": r"binary\.csv: not a readable CSV file: ",
    "float.npz": r"float\.npz: expected uint8 images .*, found float64",
}


@pytest.mark.parametrize(("images", "message"), CHECKS.items(), ids=CHECKS)
def test_a_check_on_wrong_images_names_what_is_wrong(images: str, message: str, desk: Path, kept: Store) -> None:
    said = deploykit("check", "--images", desk / images, "--store", kept.root)

    assert (said.code, said.out) == (2, ""), said.err
    assert re.search(message, said.error), said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("calibration", "message", "fix"),
    [
        ("noise.npz", r"noise\.npz: 20 of 20 images are random noise", "images as the model will see them"),
        ("scaled.npz", r"scaled\.npz: no pixel of 20 images is larger than 1", r"0\.\.255"),
        ("jpeg", r"20\.jpg: not a readable image: ", "--skip-bad"),
        ("labels/gone.csv", r"gone\.csv: line 3: no such file", "--skip-bad"),
    ],
)
def test_a_calibration_with_wrong_images_is_refused(
    calibration: str, message: str, fix: str, desk: Path, kept: Store
) -> None:
    said = deploykit("quantize", "--int8", "--layout", "ort", "--calibration", desk / calibration, "--store", kept.root)

    assert (said.code, said.out) == (2, ""), said.err
    assert re.search(message, said.error) and re.search(fix, said.fix), said.err


def test_a_check_leaves_out_what_cannot_be_read_and_says_so(desk: Path, kept: Store) -> None:
    said = deploykit("check", "--images", desk / "png", "--skip-bad", "--store", kept.root)

    assert said.code in (0, 1), said.err
    assert re.search(r"left out +.*png: 1 of 20 left out: 03\.png: not a readable image", said.out), said.out
    found = kept.newest(ReferenceLogits, "answers")
    assert found is not None and (found[0].n, found[0].skipped) == (19, 1)


def test_a_bad_line_and_its_label_are_left_out(desk: Path, kept: Store) -> None:
    said = deploykit("check", "--images", desk / "labels" / "gone.csv", "--skip-bad", "--store", kept.root)

    assert said.code in (0, 1), said.err
    assert "1 of 2 left out: gone.png: no such file" in said.out


def test_a_calibration_leaves_out_what_cannot_be_read_and_says_so(desk: Path, kept: Store) -> None:
    quantize = ("quantize", "--int8", "--layout", "ort", "--calibration", desk / "png", "--skip-bad")
    said = deploykit(*quantize, "--store", kept.root, "--json")

    assert said.code == 0, said.err
    made_by = json.loads(said.out)["made_by"]
    assert made_by["n_images"] == "19" and "1 of 20 left out: 03.png" in made_by["left_out"]
    assert "1 of 20 left out: 03.png" in said.err


def test_the_next_step_knows_what_was_left_out(desk: Path, kept: Store) -> None:
    """The recipe in force travels with each result."""
    quantize = ("quantize", "--int8", "--layout", "ort", "--calibration", desk / "png", "--skip-bad")
    assert deploykit(*quantize, "--store", kept.root).code == 0

    said = deploykit("check", "--store", kept.root)

    assert said.code in (0, 1), said.err


def test_an_export_takes_its_sample_from_what_can_be_read(line: "Line", desk: Path, tmp_path: Path) -> None:
    export = ("export", line.recipe.source.checkpoint, "--images", desk / "png", "--store", tmp_path / "store")

    refused, made = deploykit(*export), deploykit(*export, "--skip-bad", "--json")

    assert (refused.code, "03.png: not a readable image" in refused.error) == (2, True)
    assert (made.code, json.loads(made.out)["verified_on"].startswith("19 images")) == (0, True), made.err


def test_what_a_calibration_is_remarked_on_is_in_the_result(kept: Store, tmp_path: Path) -> None:
    few = save_images(tmp_path / "few.npz", 9, seed=3)

    said = deploykit("quantize", "--int8", "--layout", "ort", "--calibration", few, "--store", kept.root)

    assert said.code == 0, said.err
    assert re.search(r"calibration remarks +9 images are few to see ranges in", said.out)
    assert "calibration: 9 images are few" in said.err
    newest = kept.newest(Artifact, "quantize")
    assert newest is not None and "calibration remarks" in dict(newest[0].made_by.rows)


def test_a_check_set_that_looks_like_the_calibration_set_is_remarked_on(
    line: "Line", kept: Store, tmp_path: Path
) -> None:
    with np.load(str(line.recipe.quantize.calibration)) as data:
        np.savez(tmp_path / "brighter.npz", images=data["images"] // 2 + 60, labels=data["labels"])

    said = deploykit("check", "--images", tmp_path / "brighter.npz", "--store", kept.root)

    assert said.code in (0, 1, 6), said.err  # 20 images may decide nothing
    assert "20 of 20 calibration images look like one of 20 check images" in said.err
