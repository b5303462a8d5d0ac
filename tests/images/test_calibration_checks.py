"""Tests of hygiene: what makes images unfit to calibrate with is found where it was planted, and nowhere else."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from stage_inputs import images_of
from tiny_densenet import TINY_PREPROCESS, save_images

from deploy_kit import images
from deploy_kit.base.errors import InputError
from deploy_kit.images import calibration_checks
from deploy_kit.images.calibration_checks import near_duplicates, noise
from deploy_kit.images.sets import of_pixels
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.stages import check

FASHION = Preprocess(height=28, width=28, color="gray", mean=(0.286,), std=(0.353,))


def texture(n, side=64, seed=0, power=1.0, channels=()):
    """Give `n` images whose spectrum falls as 1/frequency^power: 1 is a photograph's, 0 is noise."""
    generator = np.random.default_rng(seed)
    waves = np.fft.fftn(generator.standard_normal((n, side, side, *channels)), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1
    field = np.fft.ifftn(waves / (frequency**power).reshape(1, side, side, *(1 for _ in channels)), axes=(1, 2)).real
    low, high = field.min(axis=(1, 2), keepdims=True), field.max(axis=(1, 2), keepdims=True)
    return ((field - low) / (high - low) * 255).astype(np.uint8)


def random_pixels(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def jpeg(pixels, quality=75):
    saved = io.BytesIO()
    Image.fromarray(pixels).save(saved, "JPEG", quality=quality)
    return np.asarray(Image.open(saved))


def found(pixels, labels=None, preprocess=FASHION):
    """Give what is found in images that are in memory, as {code: finding}."""
    labels = None if labels is None else np.asarray(labels)
    findings = calibration_checks.examine(of_pixels("planted", np.asarray(pixels), labels), preprocess)
    return {finding.code: finding for finding in findings}


@pytest.fixture(scope="module")
def calibration():
    return images.open_set("bundled:fashion-mnist-512", FASHION)


@pytest.fixture(scope="module")
def tests():
    return images.open_set("bundled:fashion-mnist-10000", FASHION)


# What is real passes


def test_nothing_is_found_in_fashion_mnist(calibration, tests):
    assert calibration_checks.examine(calibration, FASHION) == () == calibration_checks.examine(tests, FASHION)


@pytest.mark.parametrize("power", [2.0, 1.0, 0.75, 0.5])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_nothing_is_found_in_textures_from_smooth_to_rough(power, channels):
    assert found(texture(20, power=power, channels=channels)) == {}


@pytest.mark.parametrize(
    "pattern", [np.indices((32, 32)).sum(axis=0) % 2, np.arange(32)[None] % 2 + np.zeros((32, 1), int)]
)
def test_a_pattern_of_single_pixels_is_no_noise(pattern):
    """Neighbors of a checkerboard correlate by -1, those along a stripe by 1."""
    pixels = [(pattern * (100 + index)).astype(np.uint8) for index in range(20)]

    assert found(pixels) == {}


def test_small_images_are_no_noise_though_each_is_too_small_to_tell():
    small = texture(200, side=64, power=1.0)[:, :5, :5]

    silent = [noise.silent(*noise.correlations(image)) for image in small]
    assert sum(silent) > 100 and "noise" not in found(small)


# Noise


@pytest.mark.parametrize("shape", [(5, 5), (16, 16), (28, 28), (64, 64, 3), (300, 400)])
def test_random_pixels_are_refused(shape):
    finding = found(random_pixels(40, *shape))["noise"]

    assert finding.severity == "refuse"
    assert "of 40 images are random noise: neighboring pixels correlate by no more than 0.0" in finding.text
    assert finding.cure == "give images as the model will see them: noise has ranges that no image has"


def test_normally_distributed_pixels_are_refused():
    normal = np.random.default_rng(0).normal(128, 40, (40, 28, 28)).clip(0, 255).astype(np.uint8)

    assert found(normal)["noise"].severity == "refuse"


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_noise_saved_as_jpeg_is_refused(quality):
    pixels = [jpeg(image, quality) for image in random_pixels(20, 96, 96, 3)]

    assert found(pixels)["noise"].severity == "refuse"


def test_a_few_images_of_noise_among_many_do_not_matter():
    assert found(np.concatenate([texture(30), random_pixels(10, 64, 64)])) == {}


def test_noise_is_found_among_some_images():
    finding = found(np.concatenate([texture(10), random_pixels(30, 64, 64)]))["noise"]

    assert finding.text.startswith("30 of 40 images are random noise")


@pytest.mark.slow
def test_the_statistic_of_noise_is_chi_squared_with_six_degrees_of_freedom():
    scipy = pytest.importorskip("scipy.stats", reason="pip install scipy")
    values = [
        float((pairs * found**2).sum()) for found, pairs in map(noise.correlations, random_pixels(800, 32, 32, seed=3))
    ]

    assert scipy.kstest(values, scipy.chi2(6).cdf).pvalue > 0.01
    assert scipy.chi2(6).ppf(0.999) == pytest.approx(noise._CHI2, abs=0.01)


def test_the_correlation_of_neighbors_is_the_usual_one():
    image = texture(1, side=32)[0]

    right, down = noise.correlations(image)[0][:2]

    assert right == pytest.approx(np.corrcoef(image[:, :-1].ravel(), image[:, 1:].ravel())[0, 1], abs=0.02)
    assert down == pytest.approx(np.corrcoef(image[:-1].ravel(), image[1:].ravel())[0, 1], abs=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 4)])
def test_too_few_pixels_to_tell_are_not_called_noise(shape):
    assert "noise" not in found(random_pixels(20, *shape, seed=1))


# Constant images, copies, units


def test_some_constant_images_are_a_warning_with_the_first():
    pixels = texture(20)
    pixels[[4, 9]] = 17

    finding = found(pixels)["constant"]

    assert (finding.severity, finding.text) == (
        "warn", "2 of 20 images have one value in every pixel, the first is image 4",
    )  # fmt: skip


def test_a_constant_image_is_named_by_its_file(tmp_path):
    for index, image in enumerate(texture(20)):
        Image.fromarray(image if index != 3 else image * 0 + 9).save(tmp_path / f"{index:02}.png")

    (finding,) = calibration_checks.examine(images.open_set(str(tmp_path), FASHION), FASHION)

    assert finding.text.endswith("the first is 03.png")


def test_half_of_constant_images_is_refused():
    pixels = texture(20)
    pixels[:10] = np.arange(10, 20, dtype=np.uint8)[:, None, None]

    assert found(pixels)["constant"].severity == "refuse"


def test_a_color_is_constant_too():
    pixels = texture(20, channels=(3,))
    pixels[:15] = (200, 100, 0)

    assert found(pixels)["constant"].text.startswith("15 of 20 images have one value in every pixel")


def test_copies_are_a_warning_with_their_number():
    pixels = texture(20)
    pixels[5:8] = pixels[0]

    finding = found(pixels)["duplicates"]

    assert (finding.severity, finding.text) == ("warn", "3 of 20 images are copies of others, pixel for pixel")


def test_files_of_other_bytes_are_copies_where_their_pixels_are_equal(tmp_path):
    for number, pixels in enumerate(texture(19)):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    Image.open(tmp_path / "00.png").save(tmp_path / "again.bmp")

    findings = calibration_checks.examine(images.open_set(str(tmp_path), FASHION), FASHION)

    assert [one.text for one in findings] == ["1 of 20 images are copies of others, pixel for pixel"]


def test_half_of_copies_is_refused():
    pixels = texture(20)
    pixels[10:] = pixels[:10]

    assert found(pixels)["duplicates"].severity == "refuse"


def test_pixels_scaled_to_one_are_refused():
    finding = found(texture(20) // 128)["range"]

    assert (finding.severity, finding.cure) == ("refuse", "store pixels as they are, 0..255")
    assert finding.text == "no pixel of 20 images is larger than 1: scaled to 0..1, and saved as whole numbers"


@pytest.mark.parametrize(
    ("mean", "std"),
    [((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ((0.5,) * 3, (58.0,) * 3), ((127.5,) * 3, (1,) * 3)],
)
def test_a_preprocessing_for_pixels_up_to_255_is_refused(mean, std):
    preprocess = Preprocess(height=64, width=64, color="rgb", mean=mean, std=std)

    finding = found(texture(20, channels=(3,)), preprocess=preprocess)["units"]

    assert (finding.severity, finding.cure) == (
        "refuse", "divide mean and std by 255, and export the checkpoint again",
    )  # fmt: skip
    assert "are for pixels up to 255, and pixels are divided by 255 first" in finding.text


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0,) * 3, (1.0,) * 3), ((0.41, 0.46, 0.48), (1 / 255,) * 3)],
)
def test_usual_preprocessings_pass(mean, std):
    preprocess = Preprocess(height=64, width=64, color="rgb", mean=mean, std=std)

    assert found(texture(20, channels=(3,)), preprocess=preprocess) == {}


def test_few_images_are_a_warning():
    finding = found(texture(15))["few"]

    assert (finding.severity, finding.text) == ("warn", "15 images are few to see ranges in")
    assert found(texture(16)) == {}


def test_images_of_one_class_are_a_warning():
    assert found(texture(20), labels=[3] * 20)["one-class"].text == "all 20 images have the same label"
    assert found(texture(20), labels=[3] * 19 + [4]) == {}


def test_the_same_several_labels_are_one_class():
    assert "one-class" in found(texture(20), labels=np.tile([0, 1, 1], (20, 1)))


# What two sets share


def two(first, second, labels=(None, None), classes=()):
    """Give what is found between two sets in memory, as {code: finding}."""
    labels = [None if one is None else np.asarray(one) for one in labels]
    sets = [of_pixels(name, np.asarray(pixels), one) for name, pixels, one in zip("ab", (first, second), labels)]  # noqa: B905
    findings = calibration_checks.compare(sets[0], dataclasses.replace(sets[1], classes=classes))
    return {finding.code: finding for finding in findings}


def test_nothing_is_found_between_the_bundled_sets(calibration, tests):
    assert calibration_checks.compare(calibration, tests) == ()


@pytest.mark.slow
def test_no_two_of_five_million_pairs_look_alike(calibration, tests, monkeypatch):
    monkeypatch.setattr(near_duplicates, "COMPARED", 10_000)

    assert len(near_duplicates.pairs(calibration, tests)) == 0


def test_textures_of_one_kind_do_not_look_alike():
    assert two(texture(200), texture(200, seed=1)) == {}


def test_an_image_in_both_is_refused():
    shared = two(texture(20), np.concatenate([texture(5, seed=1), texture(20)[3:5]]))["overlap"]

    assert (shared.severity, shared.text) == (
        "refuse", "2 images are both in the calibration set and in the check set 'b'",
    )  # fmt: skip


CHANGES = {
    "saved as jpeg": lambda image: jpeg(image, 75),
    "larger": lambda image: np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC)),
    "smaller": lambda image: np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR)),
    "brighter": lambda image: (image * 0.9 + 20).astype(np.uint8),
    "in color": lambda image: np.repeat(image[:, :, None], 3, axis=2),
    "one bit": lambda image: image ^ np.eye(64, dtype=np.uint8),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_that_was_saved_again_is_a_warning(change):
    ours, theirs = texture(20), texture(30, seed=1)
    changed = change(ours[7])
    others = [changed, *(change(image) for image in theirs)]

    finding = two(ours, others)["near-duplicates"]

    assert finding.severity == "warn"
    assert finding.text == (
        "1 of 20 calibration images look like one of 31 check images, the first are image 7 and image 0"
    )


def test_most_of_fashion_mnist_is_known_again_as_jpeg(calibration):
    again = of_pixels("again", np.stack([jpeg(calibration.load(index)) for index in range(100)]), None)

    known = near_duplicates.pairs(calibration.first(100), again)

    assert len({pair for pair in map(tuple, known.tolist()) if pair[0] == pair[1]}) >= 95
    assert all(a == b for a, b in known.tolist())


def test_constant_images_do_not_look_alike():
    assert two(texture(5) * 0 + 9, np.full((5, 64, 64), 10, np.uint8)) == {}


def test_classes_that_calibration_lacks_are_named():
    finding = two(texture(4), texture(4, seed=1), ([0, 0, 1, 1], [0, 1, 2, 3]), ("cat", "dog", "bird", "fish"))

    assert finding["absent-classes"].text == "2 classes of the check set are not in the calibration set: bird, fish"


def test_classes_are_held_together_by_name_where_both_sets_have_names(tmp_path):
    for name, shade in (("calibration/dog", 9), ("check/cat", 40), ("check/dog", 80)):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(texture(1, seed=shade)[0]).save(tmp_path / name / "a.png")
    first, second = (images.open_set(str(tmp_path / name), FASHION) for name in ("calibration", "check"))

    (finding,) = [one for one in calibration_checks.compare(first, second) if one.code == "absent-classes"]

    assert finding.text == "1 classes of the check set are not in the calibration set: cat"


def test_classes_without_names_are_numbers_and_only_some_are_told():
    finding = two(texture(2), texture(10, seed=1), ([0, 0], list(range(10))))["absent-classes"]

    assert finding.text == "9 classes of the check set are not in the calibration set: 1, 2, 3, 4, 5, …"


def test_of_several_labels_those_that_are_set_count():
    finding = two(texture(2), texture(2, seed=1), ([[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 0, 0]]))["absent-classes"]

    assert finding.text == "1 classes of the check set are not in the calibration set: 1"


def test_classes_are_not_compared_where_only_one_set_has_labels():
    assert two(texture(2), texture(2, seed=1), (None, [0, 1])) == {}


def test_what_is_to_be_refused_is_an_error_with_its_cure():
    planted = of_pixels("planted", random_pixels(40, 16, 16), None)

    with pytest.raises(InputError, match=r"^planted: 40 of 40 images are random noise") as caught:
        calibration_checks.require(planted, calibration_checks.examine(planted, FASHION))

    assert caught.value.hint.startswith("give images as the model will see them")


def test_warnings_are_given_in_words():
    few = of_pixels("few", texture(3), None)

    assert calibration_checks.require(few, calibration_checks.examine(few, FASHION)) == (
        "3 images are few to see ranges in (a few hundred are usual)",
    )


def test_a_sample_is_spread_over_a_large_set(monkeypatch):
    monkeypatch.setattr(calibration_checks, "_SAMPLE", 4)
    pixels = texture(40)
    pixels[[0, 39]] = 7

    assert found(pixels)["constant"].text == "2 of 4 images have one value in every pixel, the first is image 0"


def test_the_check_tells_what_looks_alike(tmp_path):
    save_images(tmp_path / "a.npz", 20)
    with np.load(tmp_path / "a.npz") as data:
        np.savez(tmp_path / "b.npz", images=data["images"] // 2 + 9, labels=data["labels"])

    remarks = check.overlap(images_of(tmp_path / "a.npz"), images_of(tmp_path / "b.npz"), TINY_PREPROCESS)

    assert len(remarks) == 1
    assert remarks[0].startswith("20 of 20 calibration images look like one of 20 check images")


def test_the_check_leaves_out_what_either_set_was_told_to(tmp_path):
    save_images(tmp_path / "b.npz", 20, seed=1)
    (tmp_path / "a").mkdir()
    for index, image in enumerate(texture(3, side=16)):
        Image.fromarray(image).save(tmp_path / "a" / f"{index}.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"no image")
    npz, folder = images_of(tmp_path / "b.npz"), tmp_path / "a"
    lenient = images_of(folder, skip_bad=True)

    assert check.overlap(lenient, npz, TINY_PREPROCESS) == ()
    assert check.overlap(npz, lenient, TINY_PREPROCESS) == ()
    with pytest.raises(InputError, match=r"bad\.png: not a readable image"):
        check.overlap(images_of(folder), npz, TINY_PREPROCESS)
