"""Copies in a check set: counted by decoded pixels, which are decoded once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deploy_kit.images import ImageSet, check_sets, files, open_set
from deploy_kit.records.artifacts import Preprocess

GRAY = Preprocess(height=4, width=6, color="gray", mean=(0.5,), std=(0.5,))


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of the files that are decoded, in the order in which they are."""
    names, decode = list[str](), files.decode

    def noted(file: Path, **given: bool) -> np.ndarray:
        names.append(file.name)
        return decode(file, **given)

    monkeypatch.setattr(files, "decode", noted)
    return names


def folder(path: Path) -> ImageSet:
    """Write two images: one as two PNGs of other bytes, a copy of one of them, and a BMP; the other one once."""
    same = np.arange(24, dtype=np.uint8).reshape(4, 6)
    note = PngInfo()
    note.add_text("Comment", "other bytes")
    Image.fromarray(same).save(path / "a.png")
    Image.fromarray(same).save(path / "b.png", pnginfo=note)
    (path / "c.png").write_bytes((path / "b.png").read_bytes())
    Image.fromarray(same).save(path / "d.bmp")
    Image.fromarray(same + 1).save(path / "e.png")
    return open_set(str(path), GRAY)


def test_images_of_equal_pixels_are_copies_whatever_their_files_are(tmp_path: Path) -> None:
    found = check_sets.copies(folder(tmp_path))

    assert (found.n, found.of) == (3, 5)
    assert found.doubts == ("3 of 5 images are copies of others, pixel for pixel: 2 images tell no more however often "
                            "they are repeated",)  # fmt: skip


def test_pixels_of_other_sides_are_no_copies(tmp_path: Path) -> None:
    flat = np.zeros(24, np.uint8)
    for name, shape in (("a.png", (4, 6)), ("b.png", (6, 4))):
        Image.fromarray(flat.reshape(shape)).save(tmp_path / name)

    assert check_sets.copies(open_set(str(tmp_path), GRAY)).n == 0


def test_images_of_an_array_are_compared_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 6), np.uint8))

    assert check_sets.copies(open_set(str(tmp_path / "a.npz"), GRAY)).n == 2


def test_what_was_read_for_the_check_is_not_decoded_again(tmp_path: Path, decodings: list[str]) -> None:
    images = folder(tmp_path)
    for part in images.parts(2):
        list(part.batches(GRAY, 2))
    decodings.clear()

    assert (check_sets.copies(images).n, decodings) == (3, [])


def test_files_of_equal_bytes_are_decoded_once(tmp_path: Path, decodings: list[str]) -> None:
    images = folder(tmp_path)

    check_sets.copies(images)

    assert len(decodings) == 4
