"""Tests of images.py: pixels become tensors by the formula, in order; what cannot be read is named with its file."""

import dataclasses
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import save_images
from PIL import Image

from deploy_kit import images
from deploy_kit.errors import InputError, MissingPackageError, UnknownNameError
from deploy_kit.records import Preprocess

GRAY = Preprocess(height=4, width=6, color="gray", mean=(0.5,), std=(0.25,))
RGB = Preprocess(height=4, width=6, color="rgb", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))


@pytest.fixture
def gray():
    """One gray image of 4 × 6 px."""
    return np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)


@pytest.fixture
def color():
    """One RGB image of 4 × 6 px."""
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def npz(folder, **arrays):
    """Save arrays and give the path."""
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def pixels(n, *shape):
    return np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8)


def opened(path, preprocess=GRAY):
    return images.open_set(str(path), preprocess)


def refused(path, preprocess=GRAY):
    """Give the error of opening an image set."""
    with pytest.raises(InputError) as caught:
        images.open_set(str(path), preprocess)
    return caught.value


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


# Pixels to tensors


@pytest.mark.parametrize(("pixel", "expected"), [(0, -2), (255, 2), (51, (0.2 - 0.5) / 0.25)])
def test_a_gray_pixel_becomes_a_number_by_the_formula(pixel, expected):
    tensor = images.apply(np.full((4, 6), pixel, np.uint8), GRAY)

    assert tensor == pytest.approx(np.full((1, 4, 6), expected), abs=1e-6)


def test_each_channel_has_its_own_mean_and_std(color):
    tensor = images.apply(color, RGB)

    expected = [(color[:, :, c] / 255 - RGB.mean[c]) / RGB.std[c] for c in range(3)]
    assert tensor == pytest.approx(np.array(expected), abs=1e-6)


def test_bgr_is_rgb_with_the_channels_turned_round(color):
    bgr = dataclasses.replace(RGB, color="bgr", mean=RGB.mean[::-1], std=RGB.std[::-1])

    assert np.array_equal(images.apply(color, bgr), images.apply(color, RGB)[::-1])


def test_a_gray_image_fills_all_channels_of_a_color_model(gray):
    stacked = np.repeat(gray[:, :, None], 3, axis=2)

    assert np.array_equal(images.apply(gray, RGB), images.apply(stacked, RGB))


def test_a_tensor_is_float32(gray):
    assert images.apply(gray, GRAY).dtype == np.float32


def test_a_tensor_has_the_shape_of_the_input(color):
    assert images.apply(color, RGB).shape == (3, 4, 6)


def test_the_pixels_are_left_as_they_are(gray):
    before = gray.copy()

    images.apply(gray, GRAY)

    assert np.array_equal(gray, before)


def test_an_image_of_the_wrong_size_is_told_with_both_sizes(gray):
    with pytest.raises(InputError) as caught:
        images.apply(gray.T, GRAY)

    assert str(caught.value) == "expected 4×6 px, found 6×4"


def test_an_image_of_the_wrong_size_hints_at_resize(gray):
    with pytest.raises(InputError) as caught:
        images.apply(gray.T, GRAY)

    assert caught.value.hint == "give images of the model's size, or set 'resize' in the recipe's preprocess"


def test_a_color_image_for_a_gray_model_is_refused(color):
    with pytest.raises(InputError) as caught:
        images.apply(color, GRAY)

    error = caught.value
    assert (str(error), error.hint, error.exit_code) == (
        "expected a gray image, found 3 channels", "convert the images to gray first", 2,
    )  # fmt: skip


# Resizing


def resized(pixels, height, width, resize, interpolation="bilinear"):
    """Give the pixels of a gray image after the resize and the crop."""
    preprocess = Preprocess(
        height=height, width=width, color="gray", mean=(0.0,), std=(1.0,), resize=resize, interpolation=interpolation
    )
    return np.rint(images.apply(pixels, preprocess)[0] * 255).astype(np.uint8)


def test_an_image_of_the_right_size_is_not_touched_by_a_resize():
    square = pixels(1, 6, 6)[0]

    assert np.array_equal(resized(square, 6, 6, resize=6), square)


def test_the_shorter_side_is_scaled_and_the_center_cut_out():
    wide = np.zeros((8, 20), np.uint8)
    wide[:, 8:12] = 200  # the middle fifth

    assert np.array_equal(resized(wide, 8, 4, resize=8), np.full((8, 4), 200))


def test_a_tall_image_is_cut_at_top_and_bottom():
    tall = np.zeros((20, 8), np.uint8)
    tall[8:12] = 200

    assert np.array_equal(resized(tall, 4, 8, resize=8), np.full((4, 8), 200))


def test_halving_averages_neighbours_as_an_antialiased_filter_must():
    stripes = np.tile(np.array([0, 200], np.uint8), (16, 8))

    middle = resized(stripes, 8, 8, resize=8)[:, 2:6]

    assert np.abs(middle.astype(int) - 100).max() <= 30  # without antialiasing each pixel is 0 or 200


@pytest.mark.parametrize(
    ("interpolation", "pillows"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_the_filter_is_the_one_asked_for(interpolation, pillows):
    source = pixels(1, 9, 9)[0]

    expected = np.asarray(Image.fromarray(source).resize((6, 6), pillows))
    assert np.array_equal(resized(source, 6, 6, resize=6, interpolation=interpolation), expected)


def test_resizing_without_pillow_names_what_to_install(gray, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(MissingPackageError) as caught:
        resized(gray, 2, 2, resize=2)

    assert (str(caught.value), caught.value.hint) == (
        "resizing images needs the package 'PIL', which is not installed here", "pip install 'pillow'",
    )  # fmt: skip


# Sets


def test_batches_hold_the_images_in_order(tmp_path):
    source = pixels(5, 4, 6)
    found = opened(npz(tmp_path, images=source))

    batches = list(found.batches(GRAY, 2))

    assert np.array_equal(np.concatenate(batches), np.stack([images.apply(image, GRAY) for image in source]))


def test_the_last_batch_is_smaller(tmp_path):
    found = opened(npz(tmp_path, images=pixels(5, 4, 6)))

    assert [batch.shape for batch in found.batches(GRAY, 2)] == [(2, 1, 4, 6), (2, 1, 4, 6), (1, 1, 4, 6)]


def test_batches_are_streamed(tmp_path):
    found, loaded = opened(npz(tmp_path, images=pixels(5, 4, 6))), []
    watched = dataclasses.replace(found, load=lambda index: loaded.append(index) or found.load(index))

    next(watched.batches(GRAY, 2))

    assert loaded == [0, 1]


def test_an_image_that_does_not_fit_is_named_by_set_and_index(tmp_path):
    path = npz(tmp_path, images=pixels(5, 4, 6))
    found = opened(path)

    with pytest.raises(InputError) as caught:
        list(found.batches(dataclasses.replace(GRAY, height=5), 2))

    assert str(caught.value) == f"{path}: image 0: expected 5×6 px, found 4×6"


def test_an_image_that_does_not_fit_keeps_its_hint(tmp_path):
    found = opened(npz(tmp_path, images=pixels(5, 4, 6)))

    with pytest.raises(InputError) as caught:
        list(found.batches(dataclasses.replace(GRAY, height=5), 2))

    assert caught.value.hint.startswith("give images of the model's size")


def test_the_first_images_keep_their_labels_and_hashes(tmp_path):
    found = opened(npz(tmp_path, images=pixels(5, 4, 6), labels=np.array([3, 1, 4, 1, 5])))

    first = found.first(2)

    assert (first.n, first.labels.tolist(), first.hashes) == (2, [3, 1], found.hashes[:2])


def test_the_first_of_fewer_images_are_all(tmp_path):
    assert opened(npz(tmp_path, images=pixels(5, 4, 6))).first(99).n == 5


def test_an_image_is_hashed_by_its_pixels(tmp_path):
    source = pixels(2, 4, 6)

    found = opened(npz(tmp_path, images=source))

    assert found.hashes == tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in source)


def test_the_order_in_memory_does_not_change_the_hashes(tmp_path):
    source = pixels(2, 4, 6)
    one = opened(npz(tmp_path, images=source)).hashes

    assert opened(npz(tmp_path, images=np.asfortranarray(source))).hashes == one


def test_overlap_counts_images_wherever_they_stand(tmp_path):
    source = pixels(5, 4, 6)
    one, two = (opened(npz(tmp_path, images=part)) for part in (source[:3], source[:0:-1]))

    assert one.overlap(two) == 2


def test_sets_without_a_common_image_do_not_overlap(tmp_path):
    source = pixels(5, 4, 6)
    one, two = (opened(npz(tmp_path, images=part)) for part in (source[:3], source[3:]))

    assert one.overlap(two) == 0


def test_equal_sets_share_one_digest(tmp_path):
    one, two = (save_images(tmp_path / f"{n}.npz", 5, seed=0) for n in range(2))

    assert opened(one).digest == opened(two).digest


@pytest.mark.parametrize(
    "change",
    [
        {"images": pixels(3, 4, 6)[::-1]},
        {"labels": np.array([1, 2, 0])},
        {"images": pixels(3, 4, 6) ^ np.uint8(1)},
        {"images": pixels(3, 4, 6)[:2], "labels": np.array([0, 1])},
    ],
    ids=["order", "labels", "pixels", "count"],
)
def test_a_set_that_differs_has_another_digest(tmp_path, change):
    arrays = {"images": pixels(3, 4, 6), "labels": np.array([0, 1, 2])}
    one = opened(npz(tmp_path, **arrays)).digest

    assert opened(npz(tmp_path, **(arrays | change))).digest != one


def test_a_set_with_labels_is_told_from_one_without(tmp_path):
    one = opened(npz(tmp_path, images=pixels(3, 4, 6))).digest

    assert opened(npz(tmp_path, images=pixels(3, 4, 6), labels=np.zeros(3, int))).digest != one


# Seeded noise


def test_noise_is_the_same_each_time():
    assert images.open_set("synthetic", RGB).digest == images.open_set("synthetic", RGB).digest


def test_noise_calls_itself_synthetic():
    assert images.open_set("synthetic", RGB).name == "synthetic"


def test_noise_has_no_labels():
    assert images.open_set("synthetic", RGB).labels is None


@pytest.mark.parametrize(("preprocess", "shape"), [(GRAY, (32, 1, 4, 6)), (RGB, (32, 3, 4, 6))])
def test_noise_has_the_size_of_the_input(preprocess, shape):
    (batch,) = images.open_set("synthetic", preprocess).batches(preprocess, 32)

    assert batch.shape == shape


def test_noise_can_be_resized_like_any_image():
    preprocess = dataclasses.replace(RGB, resize=8)

    (batch,) = images.open_set("synthetic", preprocess).batches(preprocess, 32)

    assert batch.shape == (32, 3, 4, 6)


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

    assert str(refused(tmp_path / "set.npz")) == f"{tmp_path / 'set.npz'}: not a whole npz file: No data left in file"


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "set.npz").write_text("label,pixel1,pixel2\n9,0,0\n")

    assert str(refused(tmp_path / "set.npz")).startswith(f"{tmp_path / 'set.npz'}: not a readable npz file: ")


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


# Folders


def test_a_folder_of_folders_is_labelled_by_their_names_in_order(tmp_path, gray):
    for name in ("dog/a.png", "cat/b.png", "cat/c.png"):
        save(tmp_path / name, gray)

    assert opened(tmp_path).labels.tolist() == [0, 0, 1]


def test_a_flat_folder_has_no_labels(tmp_path, gray):
    save(tmp_path / "a.png", gray)

    assert opened(tmp_path).labels is None


@pytest.mark.parametrize("names", [("a.png", "cat/b.png"), ("cat/b.png", "dog/young/c.png")])
def test_a_folder_of_uneven_depth_has_no_labels(tmp_path, gray, names):
    for name in names:
        save(tmp_path / name, gray)

    assert opened(tmp_path).labels is None


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    source = pixels(3, 4, 6)
    for name, image in zip(("b.png", "c.png", "a.PNG"), source, strict=True):
        save(tmp_path / name, image)

    found = opened(tmp_path)

    assert np.array_equal([found.load(index) for index in range(3)], source[[2, 0, 1]])


def test_a_folder_is_hashed_by_its_files(tmp_path, gray):
    save(tmp_path / "a.png", gray)

    assert opened(tmp_path).hashes == (hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(),)


def test_files_that_are_no_images_are_passed_over(tmp_path, gray):
    save(tmp_path / "a.png", gray)
    (tmp_path / "labels.csv").write_text("a,3\n")

    assert opened(tmp_path).n == 1


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("a,3\n")

    error = refused(tmp_path)

    assert (str(error), error.hint) == (
        f"{tmp_path}: expected at least one image, found none",
        "images end in .bmp, .jpeg, .jpg, .pgm, .png, .ppm, .webp",
    )


def test_an_image_file_that_changed_is_hashed_again(tmp_path, gray):
    save(tmp_path / "a.png", gray)
    before = opened(tmp_path).hashes
    save(tmp_path / "a.png", gray.T)
    os.utime(tmp_path / "a.png", ns=(1, 1))

    assert opened(tmp_path).hashes != before


def test_a_color_file_is_read_in_rgb_order(tmp_path, color):
    save(tmp_path / "a.png", color)

    assert np.array_equal(opened(tmp_path, RGB).load(0), color)


def test_transparency_is_left_out(tmp_path, color):
    save(tmp_path / "a.png", np.dstack([color, np.full((4, 6), 255, np.uint8)]))

    assert np.array_equal(opened(tmp_path, RGB).load(0), color)


def test_a_broken_image_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    found = opened(tmp_path)

    with pytest.raises(InputError) as caught:
        found.load(0)

    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: not a readable image: ")


def test_an_image_file_that_was_cut_off_is_named(tmp_path):
    save(tmp_path / "a.png", pixels(1, 64, 64)[0])
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    found = opened(tmp_path)

    with pytest.raises(InputError) as caught:
        list(found.batches(dataclasses.replace(GRAY, height=64, width=64), 1))

    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: not a readable image: ")


def test_reading_image_files_without_pillow_names_what_to_install(tmp_path, gray, monkeypatch):
    save(tmp_path / "a.png", gray)
    found = opened(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(MissingPackageError) as caught:
        found.load(0)

    assert (str(caught.value), caught.value.hint) == (
        "reading image files needs the package 'PIL', which is not installed here", "pip install 'pillow'",
    )  # fmt: skip


def test_sixteen_bit_images_are_refused_rather_than_cut_off_at_255(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    preprocess = Preprocess(height=4, width=4, color="gray", mean=(0.0,), std=(1.0,))
    found = images.open_set(str(tmp_path), preprocess)

    with pytest.raises(InputError) as caught:
        found.load(0)

    assert "expected 8 bits a channel, found mode 'I;16'" in str(caught.value)
    assert caught.value.hint.startswith("convert the images to 8 bits")
