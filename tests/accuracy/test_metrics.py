"""Tests of metrics.py: worked examples, formulas of others, and that each number moves when something is wrong."""

import math

import numpy as np
import pytest
import torch

from deploy_kit.accuracy import metrics

COMPARISONS = [
    metrics.sqnr_db,
    metrics.relative_difference,
    metrics.cosine_similarity,
    metrics.largest_errors,
    metrics.top1_agreement,
]


def f32(*rows):
    return np.array(rows, np.float32)


@pytest.fixture
def logits():
    """Logits of 64 images and 10 classes."""
    return np.random.default_rng(0).normal(0, 5, (64, 10)).astype(np.float32)


def nudged(logits, image=17, factor=1.001):
    """Change one image's largest logit by 0.1 %."""
    changed = logits.copy()
    changed[image, changed[image].argmax()] *= np.float32(factor)
    return changed


@pytest.mark.parametrize("metric", COMPARISONS, ids=lambda metric: metric.__name__)
def test_shapes_that_differ_are_refused_even_where_numpy_would_stretch_one(metric):
    with pytest.raises(ValueError, match=r"^shapes differ: \(2, 3\) and \(1, 3\)$"):
        metric(np.ones((2, 3), np.float32), np.ones((1, 3), np.float32))


# Signal to quantization noise


def test_sqnr_of_a_worked_example():
    assert metrics.sqnr_db(f32([3, 4]), f32([3, 3])) == pytest.approx(10 * math.log10(25), rel=1e-12)


def test_noise_of_a_tenth_of_the_amplitude_is_20_db():
    assert metrics.sqnr_db(np.array([[1.0]]), np.array([[0.9]])) == pytest.approx(20, rel=1e-12)


def test_sqnr_of_uniform_rounding_is_close_to_6_db_a_bit():
    signal = np.random.default_rng(0).uniform(-1, 1, (1000, 100)).astype(np.float32)
    step = 2 / 2**8
    rounded = (np.floor(signal / step) + 0.5) * step  # mid-rise, 8 bits: 6.02 dB a bit for a uniform signal

    assert metrics.sqnr_db(signal, rounded) == pytest.approx(8 * 6.0206, abs=0.05)


def test_sqnr_of_equal_logits_is_infinite(logits):
    assert metrics.sqnr_db(logits, logits.copy()) == math.inf


def test_sqnr_notices_one_logit_changed_by_a_thousandth(logits):
    assert metrics.sqnr_db(logits, nudged(logits)) < 90


def test_sqnr_notices_a_scale(logits):
    assert metrics.sqnr_db(logits, logits * np.float32(0.5)) == pytest.approx(10 * math.log10(4), abs=1e-6)


def test_sqnr_of_logits_in_the_wrong_order_is_below_zero(logits):
    assert metrics.sqnr_db(logits, np.roll(logits, 1, axis=0)) < 0


def test_sqnr_does_not_underflow_in_float32():
    assert metrics.sqnr_db(f32([1e-30]), f32([2e-30])) == pytest.approx(0, abs=1e-4)


def test_sqnr_does_not_overflow_in_float32():
    assert metrics.sqnr_db(f32([1e30]), f32([2e30])) == pytest.approx(0, abs=1e-4)


def test_sqnr_of_nan_is_nan(logits):
    logits_with_nan = logits.copy()
    logits_with_nan[3, 4] = np.nan

    assert math.isnan(metrics.sqnr_db(logits, logits_with_nan))


def test_sqnr_of_an_overflow_to_infinity_is_the_worst_there_is(logits):
    overflowed = logits.copy()
    overflowed[3, 4] = np.inf

    assert metrics.sqnr_db(logits, overflowed) == -math.inf


@pytest.mark.parametrize("metric", [metrics.sqnr_db, metrics.relative_difference])
def test_a_reference_of_zeros_is_refused(metric):
    with pytest.raises(ValueError, match=r"^the reference is all zero$"):
        metric(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32))


# Relative difference


def test_relative_difference_of_a_worked_example():
    assert metrics.relative_difference(f32([-8, 2], [1, 1]), f32([-8, 3], [1, 1.5])) == 1 / 8


def test_relative_difference_of_equal_logits_is_zero(logits):
    assert metrics.relative_difference(logits, logits.copy()) == 0


def test_relative_difference_notices_one_logit_changed_by_a_thousandth(logits):
    assert metrics.relative_difference(logits, nudged(logits, image=int(logits.max(axis=1).argmax()))) > 5e-4


def test_relative_difference_of_nan_is_nan():
    assert math.isnan(metrics.relative_difference(f32([1, 2]), f32([1, np.nan])))


# Cosine


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [([3, 4], 1), ([6, 8], 1), ([4, 3], 24 / 25), ([-4, 3], 0), ([-3, -4], -1), ([0, 0], 0)],
)
def test_cosine_of_a_worked_example(candidate, expected):
    assert metrics.cosine_similarity(f32([3, 4]), f32(candidate)) == pytest.approx(expected, abs=1e-12)


def test_cosine_takes_all_logits_as_one_vector():
    assert metrics.cosine_similarity(f32([1, 0], [0, 1]), f32([1, 0], [0, -1])) == 0


def test_cosine_notices_images_in_the_wrong_order(logits):
    assert metrics.cosine_similarity(logits, np.roll(logits, 1, axis=0)) < 0.5


def test_cosine_of_nan_is_nan():
    assert math.isnan(metrics.cosine_similarity(f32([1, 2]), f32([1, np.nan])))


# Errors of images


def test_an_images_error_is_its_largest():
    assert metrics.largest_errors(f32([1, 2], [3, 4]), f32([1.5, 1], [3, 4])).tolist() == [1, 0]


def test_errors_find_the_one_image_that_changed(logits):
    assert np.flatnonzero(metrics.largest_errors(logits, nudged(logits, image=17))).tolist() == [17]


def test_the_error_of_nan_is_nan():
    assert np.isnan(metrics.largest_errors(f32([1, 2], [3, 4]), f32([1, np.nan], [3, 4]))).tolist() == [True, False]


# Agreement and hits


def test_agreement_of_a_worked_example():
    reference = f32([1, 2], [2, 1], [0, 5], [3, 0])

    assert metrics.top1_agreement(reference, f32([8, 9], [9, 8], [9, 8], [9, 8])) == 3 / 4


def test_agreement_does_not_see_a_scale(logits):
    assert metrics.top1_agreement(logits, logits * np.float32(0.1)) == 1


def test_agreement_notices_one_image_that_changed_its_class(logits):
    changed = logits.copy()
    changed[17] = -changed[17]

    assert metrics.top1_agreement(logits, changed) == 63 / 64


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_agrees_with_nothing(value):
    assert metrics.top1_agreement(f32([1, 2], [1, 2]), f32([1, value], [1, 2])) == 1 / 2


def test_hits_are_largest_logits_at_the_label():
    assert metrics.top1_hits(f32([1, 2], [2, 1], [0, 5]), np.array([1, 1, 1])).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_hits_nothing(value):
    assert metrics.top1_hits(f32([1, value]), np.array([1])).tolist() == [False]


def test_divergence_is_torchs() -> None:
    generator = np.random.default_rng(3)
    reference, candidate = 3 * generator.standard_normal((2, 50, 7))
    log_p, log_q = (torch.log_softmax(torch.from_numpy(x), 1) for x in (reference, candidate))

    wanted = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    assert metrics.kl_divergence(reference, candidate) == pytest.approx(float(wanted))
    assert metrics.kl_divergence(reference, reference) == 0
    assert math.isnan(metrics.kl_divergence(reference, np.where(candidate > 2, np.nan, candidate)))
