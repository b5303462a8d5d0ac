"""Masks beside images: which are read, how they fit, and what is said of those that do not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy_kit.base.errors import InputError
from deploy_kit.images import ImageSet, open_set, truth
from deploy_kit.records.artifacts import Preprocess

GRAY = Preprocess(height=4, width=6, color="gray", mean=(0.5,), std=(0.5,))
MASKS = "masks: expected whole numbers (n, H, W) of 2 images, found"
CLASSES = np.array([[0, 1, 2, 2, 1, 0]] * 4, np.uint8)


def folders(path: Path, masks: dict[str, np.ndarray], images: tuple[str, ...] = ("a.png", "b.png")) -> ImageSet:
    for folder in ("images", "masks"):
        (path / folder).mkdir()
    for at, name in enumerate(images):
        Image.fromarray(np.full((4, 6), at, np.uint8)).save(path / "images" / name)
    for name, mask in masks.items():
        Image.fromarray(mask).save(path / "masks" / name)
    return open_set(str(path / "images"), GRAY, masks=str(path / "masks"))


def refused(found: ImageSet, index: int = 0, **given: int) -> InputError:
    with pytest.raises(InputError) as caught:
        truth.mask_of(found, index, GRAY, (4, 6), **({"n_classes": 3, "ignore_index": None} | given))
    return caught.value


def test_a_palette_gives_its_indices(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    picture = Image.fromarray(CLASSES, "P")
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(tmp_path / "m" / "a.png")

    assert np.array_equal(truth.read_mask(tmp_path / "m" / "a.png"), CLASSES)


def test_masks_belong_to_images_of_the_same_stem(tmp_path: Path) -> None:
    found = folders(tmp_path, {"b.png": CLASSES, "a.bmp": CLASSES[:, ::-1] * 0})

    assert found.labels is None
    assert found.truth is not None
    assert truth.mask_of(found, 0, GRAY, (4, 6), n_classes=3, ignore_index=None).max() == 0
    assert np.array_equal(truth.mask_of(found, 1, GRAY, (4, 6), n_classes=3, ignore_index=None), CLASSES)


def test_other_masks_are_another_set(tmp_path: Path) -> None:
    found = folders(tmp_path, {"a.png": CLASSES, "b.png": CLASSES})
    digest, pixels = found.digest, found.pixel_digest
    Image.fromarray(CLASSES[::-1, ::-1] * 0).save(tmp_path / "masks" / "b.png")

    again = open_set(str(tmp_path / "images"), GRAY, masks=str(tmp_path / "masks"))

    assert (again.digest != digest, again.pixel_digest == pixels) == (True, True)


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"masks: 1 of 2 images have no mask, the first is b.png"):
        folders(tmp_path, {"a.png": CLASSES})


def test_a_pipe_in_the_place_of_a_mask_is_not_read(tmp_path: Path) -> None:
    folders(tmp_path, {"a.png": CLASSES, "b.png": CLASSES})
    (tmp_path / "masks" / "a.png").unlink()
    os.mkfifo(tmp_path / "masks" / "a.png")

    with pytest.raises(InputError, match=r"masks/a\.png: is no regular file"):
        open_set(str(tmp_path / "images"), GRAY, masks=str(tmp_path / "masks"))


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the mask of 'a' is there twice"):
        folders(tmp_path, {"a.png": CLASSES, "a.bmp": CLASSES, "b.png": CLASSES})


def test_colors_are_no_classes(tmp_path: Path) -> None:
    found = folders(tmp_path, {"a.png": np.zeros((4, 6, 3), np.uint8), "b.png": CLASSES})

    error = refused(found)

    assert str(error).endswith("masks/a.png: expected class numbers, found colors (RGB)")
    assert error.hint == "save each mask as a PNG of class numbers: mode P (palette) or L, one number a pixel"


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    found = folders(tmp_path, {"a.png": CLASSES[:, :5], "b.png": CLASSES})

    assert str(refused(found)).endswith("masks/a.png: expected a mask of its image's size 6×4, found 5×4")


def test_a_number_that_is_no_class_is_named_with_the_cure(tmp_path: Path) -> None:
    border = CLASSES.copy()
    border[0, 0] = 255
    found = folders(tmp_path, {"a.png": border, "b.png": CLASSES})

    error = refused(found)
    judged = truth.mask_of(found, 0, GRAY, (4, 6), n_classes=3, ignore_index=255)

    assert str(error).endswith("masks/a.png: class 255, and the output has 3 classes, 0 to 2")
    assert error.hint == "where 255 marks pixels that are not judged: --ignore-index 255"
    assert np.array_equal(judged, border)


def test_a_broken_mask_is_named(tmp_path: Path) -> None:
    found = folders(tmp_path, {"a.png": CLASSES, "b.png": CLASSES})
    (tmp_path / "masks" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")

    assert "masks/a.png: not a readable mask" in str(refused(found))


@pytest.mark.parametrize("number", [2**32 + 1, -(2**31) - 1])
def test_a_number_beyond_32_bits_does_not_become_a_class(tmp_path: Path, number: int) -> None:
    found = folders(tmp_path, {"b.png": CLASSES, "a.png": CLASSES})
    (tmp_path / "masks" / "a.png").unlink()
    large = CLASSES.astype(np.int64)
    large[0, 0] = number
    np.save(tmp_path / "masks" / "a.npy", large)
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 4, 6), np.uint8), masks=large[None])

    found = open_set(str(tmp_path / "images"), GRAY, masks=str(tmp_path / "masks"))
    for one in (found, open_set(str(tmp_path / "set.npz"), GRAY)):
        assert f"{number} is no class number" in str(refused(one))


def test_masks_are_resized_and_cut_with_their_images_and_never_interpolated(tmp_path: Path) -> None:
    mask = np.kron(np.array([[0, 7], [3, 5]], np.uint8), np.ones((10, 10), np.uint8))
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 20, 20), np.uint8), masks=mask[None])
    small = Preprocess(height=7, width=7, color="gray", mean=(0.5,), std=(0.5,), resize=9)

    found = truth.mask_of(open_set(str(tmp_path / "set.npz"), small), 0, small, (7, 7), n_classes=8, ignore_index=None)

    wanted = np.asarray(Image.fromarray(mask).resize((9, 9), Image.Resampling.NEAREST))[1:8, 1:8]
    assert np.array_equal(found, wanted)
    assert set(np.unique(found)) == {0, 3, 5, 7}


def test_a_smaller_output_takes_the_centers_of_its_pixels(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 4, 6), np.uint8), masks=np.arange(24).reshape(1, 4, 6))

    found = truth.mask_of(open_set(str(tmp_path / "set.npz"), GRAY), 0, GRAY, (2, 3), n_classes=24, ignore_index=None)

    assert found.tolist() == [[7, 9, 11], [19, 21, 23]]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"masks": np.zeros((1, 4, 6), np.uint8)}, f"{MASKS} uint8 (1, 4, 6)"),
        ({"masks": np.zeros((2, 4, 6))}, f"{MASKS} float64 (2, 4, 6)"),
        ({"targets": np.array([1.0, np.nan])}, "targets: expected finite numbers"),
        ({"targets": np.ones(2), "labels": np.ones(2, int)}, "expected one kind of labels, found targets, labels"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_labels_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((2, 4, 6), np.uint8), **arrays)

    with pytest.raises(InputError) as caught:
        open_set(str(tmp_path / "set.npz"), GRAY)

    assert str(caught.value) == f"{tmp_path / 'set.npz'}: {said}"
