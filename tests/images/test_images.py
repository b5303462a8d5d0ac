"""Tests of images: pixels become tensors by the formula, in order."""

import dataclasses
import hashlib
import sys

import numpy as np
import pytest
from image_sets import GRAY, RGB, color, gray, npz, opened, pixels
from PIL import Image
from tiny_densenet import save_images

from deploy_kit import images
from deploy_kit.base.errors import InputError, MissingPackageError
from deploy_kit.records.artifacts import Preprocess

__all__ = ["color", "gray"]  # fixtures

# Pixels to tensors


@pytest.mark.parametrize(("pixel", "expected"), [(0, -2), (255, 2), (51, (0.2 - 0.5) / 0.25)])
def test_a_gray_pixel_becomes_a_number_by_the_formula(pixel, expected):
    tensor = images.to_tensors(np.full((4, 6), pixel, np.uint8), GRAY)

    assert tensor == pytest.approx(np.full((1, 4, 6), expected), abs=1e-6)


def test_each_channel_has_its_own_mean_and_std(color):
    tensor = images.to_tensors(color, RGB)

    expected = [(color[:, :, c] / 255 - RGB.mean[c]) / RGB.std[c] for c in range(3)]
    assert tensor == pytest.approx(np.array(expected), abs=1e-6)


def test_bgr_is_rgb_with_the_channels_turned_round(color):
    bgr = dataclasses.replace(RGB, color="bgr", mean=RGB.mean[::-1], std=RGB.std[::-1])

    assert np.array_equal(images.to_tensors(color, bgr), images.to_tensors(color, RGB)[::-1])


def test_a_gray_image_fills_all_channels_of_a_color_model(gray):
    stacked = np.repeat(gray[:, :, None], 3, axis=2)

    assert np.array_equal(images.to_tensors(gray, RGB), images.to_tensors(stacked, RGB))


def test_a_tensor_is_float32(gray):
    assert images.to_tensors(gray, GRAY).dtype == np.float32


def test_a_tensor_has_the_shape_of_the_input(color):
    assert images.to_tensors(color, RGB).shape == (3, 4, 6)


def test_the_pixels_are_left_as_they_are(gray):
    before = gray.copy()

    images.to_tensors(gray, GRAY)

    assert np.array_equal(gray, before)


def test_an_image_of_the_wrong_size_is_told_with_both_sizes(gray):
    with pytest.raises(InputError) as caught:
        images.to_tensors(gray.T, GRAY)

    assert str(caught.value) == "expected 4×6 px, found 6×4"


def test_an_image_of_the_wrong_size_hints_at_resize(gray):
    with pytest.raises(InputError) as caught:
        images.to_tensors(gray.T, GRAY)

    assert caught.value.hint == (
        "give images of the model's size, or scale them: --resize 4 (in a recipe source.preprocess.resize)"
    )


def test_a_color_image_for_a_gray_model_is_refused(color):
    with pytest.raises(InputError) as caught:
        images.to_tensors(color, GRAY)

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
    return np.rint(images.to_tensors(pixels, preprocess)[0] * 255).astype(np.uint8)


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

    assert np.array_equal(np.concatenate(batches), np.stack([images.to_tensors(image, GRAY) for image in source]))


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


def test_spread_images_come_from_the_whole_set_with_their_labels(tmp_path):
    found = opened(npz(tmp_path, images=pixels(6, 4, 6), labels=np.arange(6)))

    part = found.spread(3)

    assert (part.n, part.labels.tolist()) == (3, [0, 2, 4])
    assert part.hashes == tuple(found.hashes[index] for index in (0, 2, 4))
    assert np.array_equal(part.load(1), found.load(2))
    assert found.spread(6) is found


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
