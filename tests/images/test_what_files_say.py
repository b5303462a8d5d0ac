"""What image files say of themselves is looked at: their orientation, their kind, their size."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_densenet import TINY_PREPROCESS

from deploy_kit.base.errors import InputError
from deploy_kit.images import ImageSource, open_set
from deploy_kit.images.files import SUFFIXES, decode

UPRIGHT = np.zeros((8, 16), np.uint8)
UPRIGHT[:4, :8] = 255  # the upper left quarter is white


def save(path: Path, orientation: int | None = None, pixels: np.ndarray = UPRIGHT) -> Path:
    """Save a gray image; with an orientation, turned so that its tag makes it upright again."""
    image, exif = Image.fromarray(pixels), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        image = image.transpose(back[orientation])
    image.save(path, exif=exif) if orientation is not None else image.save(path)
    return path


def folder(tmp_path: Path, ending: str = ".jpg", orientation: int = 6) -> Path:
    (tmp_path / "val").mkdir()
    for index in range(3):
        save(tmp_path / "val" / f"{index}{ending}", orientation if index == 1 else None)
    return tmp_path / "val"


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
def test_images_that_are_to_be_turned_are_asked_about(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match=r"1 of 3 images say that they are to be turned .* the first is 1") as caught:
        open_set(str(folder(tmp_path, ending)), TINY_PREPROCESS)

    assert "--orientation stored" in caught.value.hint
    assert "--orientation upright" in caught.value.hint


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_upright_images_are_what_a_viewer_shows(tmp_path: Path, ending: str, orientation: int) -> None:
    found = open_set(str(folder(tmp_path, ending, orientation)), TINY_PREPROCESS, orientation="upright")

    assert found.turned == (f"1{ending}",)
    for index in range(3):
        assert np.abs(found.load(index).astype(int) - UPRIGHT).max() < 40  # JPEG loses a little


def test_stored_images_are_what_torchvisions_loader_gives(tmp_path: Path) -> None:
    val = folder(tmp_path, ".png")
    found = open_set(str(val), TINY_PREPROCESS, orientation="stored")

    with Image.open(val / "1.png") as image:
        assert np.array_equal(found.load(1), np.asarray(image.convert("L")))
    assert found.load(1).shape == (16, 8)
    assert found.turned == ()


def test_both_answers_are_two_sets(tmp_path: Path) -> None:
    val = str(folder(tmp_path))
    stored, upright = (
        ImageSource(name=val, orientation=answer).open(TINY_PREPROCESS) for answer in ("stored", "upright")
    )

    assert stored.digest != upright.digest


def test_an_answer_changes_nothing_where_no_image_has_the_tag(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")

    digests = {open_set(str(tmp_path), TINY_PREPROCESS, orientation=o).digest for o in (None, "stored", "upright")}

    assert len(digests) == 1


@pytest.mark.parametrize("ending", sorted(SUFFIXES))
def test_every_ending_that_is_taken_is_decoded(tmp_path: Path, ending: str) -> None:
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG", ".pnm": "PPM", ".pgm": "PPM", ".pbm": "PPM"}.get(ending)
    image = Image.fromarray(UPRIGHT)
    (image.convert("1") if ending == ".pbm" else image).save(tmp_path / f"a{ending}", format=kind)

    assert open_set(str(tmp_path), TINY_PREPROCESS).load(0).shape[:2] == (8, 16)


def test_files_that_may_be_images_are_counted_where_they_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("b.heic", "c.heic", "d.dcm", "labels.csv", "README", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"?")

    found = open_set(str(tmp_path), TINY_PREPROCESS)

    assert found.left_out.endswith("files that are no images by their ending were passed over: .dcm ×1, .heic ×2")


def test_no_other_program_is_started_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "gs"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")

    with pytest.raises(InputError, match="not a readable image"):
        decode(tmp_path / "a.png")

    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_is_not_read(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "a.png")
    if kind == "pipe":
        os.mkfifo(tmp_path / "b.png")
    else:
        (tmp_path / "b.png").symlink_to("/dev/zero")

    with pytest.raises(InputError, match=r"b\.png: is no regular file"):
        open_set(str(tmp_path), TINY_PREPROCESS)
    assert open_set(str(tmp_path), TINY_PREPROCESS, skip_bad=True).skipped == (("b.png", "is no regular file"),)


def npz(path: Path, header_shape: tuple[int, ...], data: bytes) -> Path:
    """Write an npz whose array's header says one thing and whose data may say another."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": header_shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + data)
    return path


@pytest.mark.parametrize("shape", [(2**40, 4, 4), (3, 4, 4), (1, 4, 4)])
def test_an_npz_whose_header_asks_for_other_bytes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"'images\.npy': its header asks for .* bytes of uint8, and it holds 32"):
        open_set(str(npz(tmp_path / "a.npz", shape, bytes(32))), TINY_PREPROCESS)


@pytest.mark.slow
def test_an_npz_that_unpacks_to_far_more_than_images_do_is_refused_unread(tmp_path: Path) -> None:
    n = 300 << 20
    path = npz(tmp_path / "a.npz", (n // 256, 16, 16), bytes(n))

    with pytest.raises(InputError, match=r"unpacks from [\d,]+ to 314,572,800 bytes, far more than images do"):
        open_set(str(path), TINY_PREPROCESS)
