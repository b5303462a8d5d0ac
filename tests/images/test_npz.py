"""Tests of images/npz.py: what is in an npz file, and what is said where it cannot be read."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_sets import GRAY, RGB, color, gray, npz, opened, pixels, refused
from tiny_densenet import save_images

from deploy_kit import images
from deploy_kit.base.errors import UnknownNameError

__all__ = ["color", "gray"]  # fixtures

# npz files


def test_an_npz_file_gives_its_images_and_labels(tmp_path):
    found = opened(npz(tmp_path, images=pixels(3, 4, 6), labels=np.array([2, 0, 1], np.uint8)))

    assert (found.n, found.labels.tolist(), found.labels.dtype) == (3, [2, 0, 1], np.int64)


def test_an_npz_file_without_labels_has_none(tmp_path):
    assert opened(npz(tmp_path, images=pixels(3, 4, 6))).labels is None


def test_an_npz_file_of_color_images_is_read(tmp_path):
    source = pixels(3, 4, 6, 3)

    assert np.array_equal(opened(npz(tmp_path, images=source), RGB).load(1), source[1])


def test_a_set_is_named_as_the_recipe_names_it():
    assert images.open_set("bundled:fashion-mnist-512", GRAY).name == "bundled:fashion-mnist-512"


def test_a_missing_file_is_named(tmp_path):
    error = refused(tmp_path / "gone.npz")

    assert (str(error), error.hint, error.exit_code) == (
        f"{tmp_path / 'gone.npz'}: no such file or folder", "give a folder of images, a CSV manifest or an npz file", 2,
    )  # fmt: skip


def test_a_bundled_set_that_does_not_exist_names_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        images.open_set("bundled:fashion-mnist-511", GRAY)

    assert (str(caught.value), caught.value.hint) == (
        "no file 'fashion-mnist-511' is bundled under 'calibration'", "did you mean 'fashion-mnist-512'?",
    )  # fmt: skip


def test_a_set_of_no_images_is_refused(tmp_path):
    path = npz(tmp_path, images=pixels(0, 4, 6))

    assert str(refused(path)) == f"{path}: expected at least one image, found none"


def test_a_set_of_no_images_gets_no_hint_that_is_for_folders(tmp_path):
    assert ".png" not in refused(npz(tmp_path, images=pixels(0, 4, 6))).hint


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"")

    assert str(refused(tmp_path / "set.npz")) == f"{tmp_path / 'set.npz'}: not a whole npz file: File is not a zip file"


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "set.npz").write_text("label,pixel1,pixel2\n9,0,0\n")

    assert str(refused(tmp_path / "set.npz")) == (
        f"{tmp_path / 'set.npz'}: expected a folder of images, a CSV manifest or an npz file"
    )


def test_a_bare_array_is_refused(tmp_path):
    np.save(tmp_path / "images.npy", pixels(3, 4, 6))

    assert str(refused(tmp_path / "images.npy")) == (
        f"{tmp_path / 'images.npy'}: expected an npz file with an array 'images', found one bare array"
    )


def test_pickled_objects_are_refused(tmp_path):
    path = npz(tmp_path, images=np.array([None, 1]))

    assert str(refused(path)).startswith(f"{path}: not a readable npz file: Object arrays cannot be loaded")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path, share):
    path = npz(tmp_path, images=pixels(50, 4, 6))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    error = refused(path)

    assert (str(error), error.hint) == (
        f"{path}: not a whole npz file: File is not a zip file", "it may be cut off: get it again",
    )  # fmt: skip


def test_a_file_that_was_cut_off_is_not_left_open(tmp_path):
    path = npz(tmp_path, images=pixels(50, 4, 6))
    path.write_bytes(path.read_bytes()[:500])

    error = refused(path)

    assert error and path.resolve() not in [descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()]


def test_a_file_with_one_wrong_byte_is_refused(tmp_path):
    path = npz(tmp_path, images=pixels(50, 4, 6))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))

    assert str(refused(path)) == f"{path}: not a whole npz file: Bad CRC-32 for file 'images.npy'"


def test_a_compressed_file_with_wrong_bytes_is_refused(tmp_path):
    path = save_images(tmp_path / "set.npz", 50)
    content = bytearray(path.read_bytes())
    content[2000:2020] = bytes(20)
    path.write_bytes(bytes(content))

    assert str(refused(path)).startswith(f"{path}: not a whole npz file: ")


@pytest.mark.parametrize("header", [b"{'descr': (", b"{'descr'}", b"'\xff", b"1 +"])
def test_an_array_with_a_damaged_header_is_refused(tmp_path, header):
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", head)

    assert str(refused(tmp_path / "set.npz")).startswith(f"{tmp_path / 'set.npz'}: not a readable npz file: ")


def test_a_file_without_images_is_refused(tmp_path):
    path = npz(tmp_path, pictures=pixels(3, 4, 6))

    assert str(refused(path)) == f"{path}: expected an array 'images', found none"


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((3, 4, 6), np.float32), "float32 (3, 4, 6)"),
        (np.zeros((3, 1, 4, 6), np.uint8), "uint8 (3, 1, 4, 6)"),
        (np.zeros((3, 24), np.uint8), "uint8 (3, 24)"),
        (np.uint8(3), "uint8 ()"),
    ],
)
def test_an_array_of_the_wrong_kind_is_told_with_what_it_is(tmp_path, array, found):
    path = npz(tmp_path, images=array)

    assert str(refused(path)) == f"{path}: expected uint8 images (n, H, W) or (n, H, W, 3), found {found}"


def test_an_array_of_the_wrong_kind_hints_to_store_pixels(tmp_path):
    error = refused(npz(tmp_path, images=np.zeros((3, 4, 6), np.float32)))

    assert error.hint == "store the pixels as they are, 0..255: the preprocessing is applied when they are read"


@pytest.mark.parametrize(
    ("labels", "found"), [(np.zeros(2, int), "(2,)"), (np.zeros((2, 10), int), "(2, 10)"), (np.uint8(3), "()")]
)
def test_labels_that_do_not_fit_the_images_are_refused(tmp_path, labels, found):
    path = npz(tmp_path, images=pixels(3, 4, 6), labels=labels)

    assert str(refused(path)) == f"{path}: expected 3 labels, found {found}"


@pytest.mark.parametrize(
    ("labels", "found"), [(["cat", "dog", "cat"], "<U3"), ([0.5, 1.5, 2.5], "float64"), ([True, False, True], "bool")]
)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, labels, found):
    path = npz(tmp_path, images=pixels(3, 4, 6), labels=np.array(labels))

    assert str(refused(path)) == f"{path}: expected labels as whole numbers, found {found}"


def test_images_without_a_side_are_refused(tmp_path):
    path = npz(tmp_path, images=pixels(3, 0, 6))

    assert str(refused(path)) == f"{path}: expected images of at least 1×1 px, found uint8 (3, 0, 6)"


# Manifests


def manifest(path, hashes):
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashes}))


def test_a_set_that_fits_its_manifest_is_opened(tmp_path):
    path = npz(tmp_path, images=pixels(3, 4, 6))
    manifest(path, opened(path).hashes)

    assert opened(path).n == 3


def test_an_image_that_its_manifest_does_not_name_is_told_by_its_index(tmp_path):
    path = npz(tmp_path, images=pixels(3, 4, 6))
    manifest(path, [*opened(path).hashes[:2], "0" * 64])

    assert str(refused(path)) == f"{path}: image 2 is not the one its manifest names"


def test_a_manifest_of_another_number_of_images_is_told(tmp_path):
    path = npz(tmp_path, images=pixels(3, 4, 6))
    manifest(path, opened(path).hashes[:2])

    assert str(refused(path)) == f"{path}: its manifest promises 2 images, found 3"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_manifest_that_is_none_is_told(tmp_path, text):
    path = npz(tmp_path, images=pixels(3, 4, 6))
    path.with_suffix(".json").write_text(text)

    assert str(refused(path)) == f"{path.with_suffix('.json')}: not a manifest: expected JSON with 'sha256'"


@pytest.mark.parametrize("promised", ["abc", 5, None, {}])
def test_a_manifest_without_a_list_is_refused(tmp_path, promised):
    save_images(tmp_path / "set.npz", 3, size=4)
    (tmp_path / "set.json").write_text(json.dumps({"sha256": promised}))

    assert str(refused(tmp_path / "set.npz")) == (
        f"{tmp_path / 'set.json'}: not a manifest: expected 'sha256' to be a list, one of each image"
    )
