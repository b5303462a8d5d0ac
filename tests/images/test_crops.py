"""Tests of ten crops: where they lie, in which order, and that averaging their logits is what fb.resnet.torch does."""

import dataclasses

import numpy as np
import pytest
from image_sets import opened, pixels, save
from PIL import Image

from deploy_kit import images
from deploy_kit.base.errors import InputError
from deploy_kit.records.artifacts import BareInput, Preprocess

WIDE = Preprocess(height=4, width=6, color="gray", mean=(0.0,), std=(1.0,), resize=8)


def cut(image, preprocess=WIDE):
    """Give the crops of an image that the resize leaves as it is, as pixels."""
    return np.rint(images.ten_crops(image, preprocess) * 255).astype(np.uint8)


@pytest.fixture
def image():
    """8×12 px: the shorter side is what the resize asks for."""
    return pixels(1, 8, 12)[0]


def test_the_first_five_are_center_and_corners(image):
    center, top_left, top_right, bottom_left, bottom_right = cut(image)[:5, 0]

    assert np.array_equal(center, image[2:6, 3:9])
    assert np.array_equal(top_left, image[:4, :6]) and np.array_equal(top_right, image[:4, -6:])
    assert np.array_equal(bottom_left, image[-4:, :6]) and np.array_equal(bottom_right, image[-4:, -6:])


def test_the_last_five_are_those_of_the_mirror_image(image):
    assert np.array_equal(cut(image)[5:], cut(image[:, ::-1])[:5])


def test_the_mirrored_top_left_shows_what_is_at_the_top_right(image):
    found = cut(image)[:, 0]

    assert np.array_equal(found[6], found[2][:, ::-1])


def test_the_first_crop_is_the_only_one_of_a_single_crop():
    image = pixels(1, 30, 41, 3)[0]
    rgb = Preprocess(height=9, width=9, color="rgb", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), resize=13)

    assert np.array_equal(images.ten_crops(image, rgb)[0], images.to_tensors(image, rgb))


def test_a_batch_holds_ten_rows_of_each_image(tmp_path):
    for index, one in enumerate(pixels(3, 8, 12)):
        save(tmp_path / f"{index}.png", one)
    found = opened(tmp_path, WIDE)

    batches = list(found.batches(WIDE, 2, crops=10))

    assert [batch.shape for batch in batches] == [(20, 1, 4, 6), (10, 1, 4, 6)]
    wanted = np.concatenate([images.ten_crops(found.load(index), WIDE) for index in range(3)])
    assert np.array_equal(np.concatenate(batches), wanted)


@pytest.mark.parametrize(("resize", "found"), [(None, "none"), (6, "6"), (4, "4")])
def test_without_room_for_ten_crops_there_are_none(tmp_path, resize, found):
    save(tmp_path / "a.png", pixels(1, 4, 6)[0])
    preprocess = dataclasses.replace(WIDE, resize=resize)

    with pytest.raises(InputError) as caught:
        list(opened(tmp_path, preprocess).batches(preprocess, 1, crops=10))

    assert str(caught.value) == f"10 crops of 4×6 px: expected a 'resize' above 6 px, found {found}"
    assert caught.value.hint == "set 'resize' in the preprocess (256 for crops of 224 px), or take one crop: --crops 1"


def test_an_input_that_is_no_image_has_no_crops():
    bare = BareInput(shape=(1, 4, 4))

    with pytest.raises(InputError, match="10 crops: expected images, found an input of which only the shape is known"):
        list(images.open_set("synthetic", bare).batches(bare, 1, crops=10))


def test_the_logits_of_an_image_are_the_mean_of_its_crops():
    logits = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)

    found = images.mean_of_crops(logits, 10)

    assert (found.shape, found.dtype) == ((3, 4), np.float32)
    np.testing.assert_allclose(found[1], logits[10:20].astype(np.float64).mean(axis=0), rtol=1e-6)


def test_the_mean_ranks_classes_as_the_sum_of_fb_resnet_torch_does():
    logits = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)

    summed = logits.reshape(5, 10, 6).sum(axis=1)

    assert np.array_equal(np.argsort(images.mean_of_crops(logits, 10)), np.argsort(summed))


def test_one_crop_is_its_own_mean():
    logits = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)

    assert images.mean_of_crops(logits, 1) is logits


def test_ten_crops_of_a_uniform_image_are_ten_times_the_same():
    flat = np.asarray(Image.new("L", (12, 8), 77))

    assert len(np.unique(images.ten_crops(flat, WIDE))) == 1
