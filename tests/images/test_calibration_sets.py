"""Tests of the bundled image sets: whole, balanced, disjoint, made the same way each time; and that this can fail."""

import hashlib
import importlib.util
import json
import shutil

import numpy as np
import pytest

from deploy_kit import images
from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError
from deploy_kit.records.artifacts import Preprocess

PREPROCESS = Preprocess(height=28, width=28, color="gray", mean=(0.286,), std=(0.353,))
NAMES = ("fashion-mnist-512", "fashion-mnist-10000")


@pytest.fixture(scope="module")
def calibration():
    return images.open_set("bundled:fashion-mnist-512", PREPROCESS)


@pytest.fixture(scope="module")
def check():
    return images.open_set("bundled:fashion-mnist-10000", PREPROCESS)


@pytest.fixture(scope="module")
def maker():
    """The script that made the sets."""
    path = bundled.bundled_folder("calibration") / "make_fashion_mnist.py"
    spec = importlib.util.spec_from_file_location("make_fashion_mnist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path):
    """The calibration set and its manifest, in a folder where they may be spoiled."""
    folder = bundled.bundled_folder("calibration")
    shutil.copy(folder / "fashion-mnist-512.json", tmp_path / "set.json")
    return shutil.copy(folder / "fashion-mnist-512.npz", tmp_path / "set.npz")


def test_there_are_10000_images_to_check_on(check):
    assert check.n == 10000


def test_there_are_512_images_to_calibrate_on(calibration):
    assert calibration.n == 512


def test_the_small_set_is_every_sixteenth_of_the_calibration_images(calibration):
    small = images.open_set("bundled:fashion-mnist-32", PREPROCESS)

    assert small.hashes == calibration.hashes[::16]


def test_calibration_and_check_share_no_image_by_sha256(calibration, check):
    assert check.overlap(calibration) == 0


def test_no_image_calibrates_twice(calibration):
    assert len(set(calibration.hashes)) == 512


def test_the_classes_calibrate_as_equally_as_512_images_allow(calibration):
    assert sorted(np.bincount(calibration.labels, minlength=10)) == [51] * 8 + [52] * 2


def test_each_class_has_1000_images_to_check_on(check):
    assert np.bincount(check.labels).tolist() == [1000] * 10


def test_the_first_labels_are_those_of_the_published_test_images(check):
    assert check.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_is_the_sha256_of_each_image(name):
    path = bundled.find_bundled("calibration", name)
    with np.load(path) as data:
        found = [hashlib.sha256(image.tobytes()).hexdigest() for image in data["images"]]

    assert found == json.loads(path.with_suffix(".json").read_text())["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_counts_the_images(name):
    manifest = json.loads(bundled.find_bundled("calibration", name).with_suffix(".json").read_text())

    assert manifest["count"] == len(manifest["sha256"]) == int(name.rsplit("-", 1)[1])


@pytest.mark.parametrize(("name", "split"), [(NAMES[0], "train"), (NAMES[1], "test")])
def test_the_manifest_says_which_images_these_are(name, split):
    manifest = json.loads(bundled.find_bundled("calibration", name).with_suffix(".json").read_text())

    assert manifest["split"] == split


@pytest.mark.parametrize("name", NAMES)
def test_images_are_gray_bytes_of_28_px(name):
    with np.load(bundled.find_bundled("calibration", name)) as data:
        assert (data["images"].dtype, data["images"].shape[1:]) == (np.uint8, (28, 28))


def test_one_image_in_both_sets_is_noticed(calibration, check, tmp_path):
    with np.load(bundled.find_bundled("calibration", "fashion-mnist-512")) as data:
        pixels = data["images"].copy()
    pixels[100] = check.load(5000)
    np.savez(tmp_path / "spoiled.npz", images=pixels)

    spoiled = images.open_set(str(tmp_path / "spoiled.npz"), PREPROCESS)

    assert check.overlap(spoiled) == 1


def test_one_bit_of_one_pixel_changed_is_noticed(copy):
    with np.load(copy) as data:
        pixels, labels = data["images"].copy(), data["labels"]
    pixels[300, 14, 14] ^= 1
    np.savez(copy, images=pixels, labels=labels)

    with pytest.raises(InputError) as caught:
        images.open_set(str(copy), PREPROCESS)

    assert str(caught.value) == f"{copy}: image 300 is not the one its manifest names"


def test_two_images_changed_about_are_noticed(copy):
    with np.load(copy) as data:
        pixels, labels = data["images"].copy(), data["labels"]
    pixels[[0, 1]] = pixels[[1, 0]]
    np.savez(copy, images=pixels, labels=labels)

    with pytest.raises(InputError, match="image 0 is not the one its manifest names"):
        images.open_set(str(copy), PREPROCESS)


def test_an_image_left_out_is_noticed(copy):
    with np.load(copy) as data:
        pixels, labels = data["images"][1:], data["labels"][1:]
    np.savez(copy, images=pixels, labels=labels)

    with pytest.raises(InputError) as caught:
        images.open_set(str(copy), PREPROCESS)

    assert str(caught.value) == f"{copy}: its manifest promises 512 images, found 511"


def test_the_script_writes_the_same_bytes_from_the_same_images(maker, tmp_path):
    with np.load(bundled.find_bundled("calibration", "fashion-mnist-512")) as data:
        pixels, labels = data["images"], data["labels"]
    for name in ("one.npz", "two.npz"):
        maker.write(tmp_path / name, pixels[:20], labels[:20], {"split": "train"})

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_the_script_writes_a_set_that_its_manifest_fits(maker, tmp_path):
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
    maker.write(tmp_path / "set.npz", pixels, np.array([0, 1, 2], np.uint8), {})

    found = images.open_set(str(tmp_path / "set.npz"), PREPROCESS)

    assert (found.n, found.labels.tolist()) == (3, [0, 1, 2])


def test_the_script_draws_equally_from_the_classes(maker):
    labels = np.repeat(np.arange(10), [500, 60, 60, 60, 60, 60, 60, 60, 60, 60])

    drawn = maker.balanced(labels, 512, seed=0, barred=set())

    assert np.bincount(labels[drawn]).tolist() == [52] * 2 + [51] * 8


def test_the_script_draws_no_image_twice(maker):
    drawn = maker.balanced(np.repeat(np.arange(10), 60), 512, seed=0, barred=set())

    assert len(set(drawn.tolist())) == 512


def test_the_script_never_draws_an_image_that_is_barred(maker):
    barred = set(range(0, 600, 10))

    drawn = maker.balanced(np.repeat(np.arange(10), 60), 512, seed=0, barred=barred)

    assert not barred & set(drawn.tolist())
