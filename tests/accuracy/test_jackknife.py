"""Drops of scores of sums: the interval against Student's, by simulation, and how many images would tell."""

import math

import numpy as np
import pytest
from scipy import stats

from deploy_kit.accuracy import jackknife


def share(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 10, 30, 1000])
def test_quantiles_are_those_of_student(freedom: int) -> None:
    assert jackknife.student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


def test_a_mean_has_the_paired_t_interval() -> None:
    random = np.random.default_rng(0)
    before, after = random.random((2, 40))
    ones = np.ones(40)

    drop = jackknife.paired_drop(np.stack([before, ones], 1), np.stack([after, ones], 1), share, "score")

    interval = stats.ttest_rel(before, after).confidence_interval()
    assert drop.points == pytest.approx(100 * (before - after).mean())
    assert (drop.low, drop.high) == pytest.approx((100 * interval.low, 100 * interval.high), rel=1e-3)


def test_intervals_of_a_ratio_hold_the_true_drop_in_95_of_100_sets() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        size = random.integers(20, 200, 30).astype(float)
        before, after = random.binomial(size.astype(int), 0.8), random.binomial(size.astype(int), 0.77)
        drop = jackknife.paired_drop(np.stack([before, size], 1), np.stack([after, size], 1), share, "score")
        held += drop.low <= 3 <= drop.high

    assert 930 <= held <= 970


def test_one_image_shows_nothing() -> None:
    drop = jackknife.paired_drop(np.array([[9.0, 10]]), np.array([[9.0, 10]]), share, "score", 1.0)

    assert drop.points == 0
    assert math.isnan(drop.high)
    assert drop.answer(1.0) == "too few images to tell"


def test_images_needed_would_tell() -> None:
    random = np.random.default_rng(1)
    ones = np.ones(20)
    before = random.random(20)
    after = before - 0.01 + random.normal(0, 0.05, 20)

    drop = jackknife.paired_drop(np.stack([before, ones], 1), np.stack([after, ones], 1), share, "score", 3.0)

    assert drop.answer(3.0) == "too few images to tell"
    assert drop.needed is not None
    assert (drop.high - drop.points) * math.sqrt(20 / drop.needed) < 3 - drop.points
