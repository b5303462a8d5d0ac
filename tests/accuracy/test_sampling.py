"""Tests of sampling.py: two float32 programs of one function, and faults planted where they are and are not seen."""

from collections.abc import Callable

import numpy as np
import pytest

from deploy_kit.accuracy import sampling
from deploy_kit.accuracy.scores.flips import top1_margins

N, K = 1000, 10


@pytest.fixture
def wanted() -> np.ndarray:
    """Logits of 1,000 images and 10 classes."""
    return np.random.default_rng(0).normal(0, 5, (N, K)).astype(np.float32)


def rounded(logits: np.ndarray, share: float = 2e-6) -> np.ndarray:
    """Give logits with the deviations of another float32 program."""
    noise = np.random.default_rng(1).uniform(-share, share, logits.shape) * np.abs(logits).max()
    return (logits + noise).astype(np.float32)


def taken(wanted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Sample an engine that answers `truth`; the numbers of images of each run come last."""
    runs = list[int]()

    def compute(at: np.ndarray) -> np.ndarray:
        runs.append(len(at))
        return truth[at]

    return *sampling.sampled_logits(wanted, compute), runs


def ordinary(wanted: np.ndarray) -> int:
    """Give an image that no rule selects."""
    _, computed, _ = taken(wanted, wanted)
    return int(np.flatnonzero(~computed)[100])


def test_two_orders_of_summation_give_the_classes_of_all_images_from_a_part() -> None:
    draws = np.random.default_rng(2)
    features, weights = draws.normal(size=(N, 512)).astype(np.float32), draws.normal(size=(512, K)).astype(np.float32)
    wanted, truth = features @ weights, sum(features[:, i::8] @ weights[i::8] for i in range(8))

    found, computed, _ = taken(wanted, truth)

    assert not np.array_equal(wanted, truth)
    assert computed.sum() < N / 3
    assert np.array_equal(found.argmax(1), truth.argmax(1))


def test_the_others_have_a_margin_that_eight_times_the_deviation_cannot_cross(wanted: np.ndarray) -> None:
    wanted[:, 0] = wanted.max(axis=1) - np.linspace(0.001, 0.4, N)  # a tenth of all is close

    found, computed, runs = taken(wanted, rounded(wanted, 9e-5))

    deviation = np.abs(wanted - found)[computed].max()
    assert top1_margins(wanted)[~computed].min() > 2 * 8 * deviation
    assert len(runs) == 2


def test_where_nothing_was_run_the_checkpoints_logits_stand(wanted: np.ndarray) -> None:
    truth = rounded(wanted)

    found, computed, runs = taken(wanted, truth)

    assert np.array_equal(found[computed], truth[computed])
    assert np.array_equal(found[~computed], wanted[~computed])
    assert sum(runs) == computed.sum()


def closest(wanted: np.ndarray) -> int:
    return int(top1_margins(wanted).argmin())


def largest(wanted: np.ndarray) -> int:
    return int(np.abs(wanted).max(axis=1).argmax())


@pytest.mark.parametrize("image", [closest, largest, lambda wanted: 500], ids=["closest", "largest", "spread"])
@pytest.mark.parametrize("value", [0.01, np.nan, np.inf])
def test_a_fault_that_the_part_shows_makes_it_all_images(
    wanted: np.ndarray, image: Callable[[np.ndarray], int], value: float
) -> None:
    truth = rounded(wanted)
    truth[image(wanted), 3] += value

    found, computed, _ = taken(wanted, truth)

    assert computed.all()
    assert np.array_equal(found, truth, equal_nan=True)


def test_logits_that_saturate_are_seen(wanted: np.ndarray) -> None:
    truth = np.minimum(wanted, np.sort(wanted.max(axis=1))[-3])

    _, computed, _ = taken(wanted, truth)

    assert computed.all()


def test_a_fault_on_one_ordinary_image_is_not_seen_and_not_said_to_be(wanted: np.ndarray) -> None:
    truth, image = rounded(wanted), ordinary(wanted)
    truth[image] = -truth[image]

    _, computed, _ = taken(wanted, truth)

    assert not computed[image]


def test_images_without_a_margin_are_all_computed() -> None:
    _, computed, _ = taken(np.full((N, K), 2, np.float32), np.full((N, K), 2, np.float32))

    assert computed.all()
