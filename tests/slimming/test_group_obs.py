"""The order and cost of removals, held against dense least squares on what is left."""

import itertools

import numpy as np
import pytest
import torch

from deploy_kit.base.errors import SlimError
from deploy_kit.slimming import group_obs

TAPS, CHANNELS, OUT = 3, 5, 2


def drawn(seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    mix = generator.standard_normal((CHANNELS * TAPS, CHANNELS * TAPS))
    rows = generator.standard_normal((n, CHANNELS * TAPS)) @ mix
    root = generator.standard_normal((OUT, OUT))
    return np.cov(rows.T, bias=True), generator.standard_normal((CHANNELS * TAPS, OUT)), root @ root.T


def removed(covariance: np.ndarray, weights: np.ndarray, cost: np.ndarray) -> tuple[list[int], list[float]]:
    return group_obs.removal_order(*map(torch.from_numpy, (covariance, weights, cost)), len(covariance) // TAPS)


def dense(covariance: np.ndarray, weights: np.ndarray, cost: np.ndarray, gone: tuple[int, ...]) -> float:
    """Solve for the weights of the channels that are left, and give the error of the best ones."""
    size = len(covariance)
    h = covariance + group_obs.DAMPING * np.trace(covariance) / size * np.eye(size)
    left = [i for i in range(size) if i // TAPS not in gone]
    best = np.zeros_like(weights)
    best[left] = np.linalg.solve(h[np.ix_(left, left)], h[left] @ weights)
    error = weights - best
    return 0.5 * float(np.trace(cost @ error.T @ h @ error))


def test_each_cost_is_that_of_the_best_weights_for_what_is_left() -> None:
    covariance, weights, cost = drawn()

    order, errors = removed(covariance, weights, cost)

    assert errors[0] == 0
    for n in range(1, CHANNELS):
        assert errors[n] == pytest.approx(dense(covariance, weights, cost, tuple(order[:n])), rel=1e-9)


def test_the_first_to_go_is_the_cheapest_of_all() -> None:
    for seed in range(5):
        covariance, weights, cost = drawn(seed)

        order, _ = removed(covariance, weights, cost)

        alone = [dense(covariance, weights, cost, (q,)) for q in range(CHANNELS)]
        assert order[0] == int(np.argmin(alone))


def test_a_greedy_pair_is_near_the_best_pair() -> None:
    covariance, weights, cost = drawn(3)

    _, errors = removed(covariance, weights, cost)

    best = min(dense(covariance, weights, cost, pair) for pair in itertools.combinations(range(CHANNELS), 2))
    assert best <= errors[2] * (1 + 1e-9) < 2 * best


def test_costs_hold_beyond_the_removals_that_are_applied_together() -> None:
    generator = np.random.default_rng(1)
    n = 2 * group_obs._BLOCK + 3
    rows = generator.standard_normal((500, n * TAPS)) @ generator.standard_normal((n * TAPS, n * TAPS))
    covariance, weights, cost = np.cov(rows.T, bias=True), generator.standard_normal((n * TAPS, OUT)), np.eye(OUT)

    order, errors = removed(covariance, weights, cost)

    assert sorted(order) == sorted(set(order))
    last = tuple(order[: n - 2])
    assert errors[n - 2] == pytest.approx(dense(covariance, weights, cost, last), rel=1e-6)


def test_a_duplicated_channel_goes_first_and_costs_next_to_nothing() -> None:
    covariance, weights, cost = drawn()
    index = np.concatenate([np.arange(CHANNELS * TAPS), np.arange(TAPS, 2 * TAPS)])  # channel 1 once more
    doubled = covariance[np.ix_(index, index)]
    more = np.concatenate([weights, weights[:TAPS]])

    order, errors = removed(doubled, more, cost)

    assert order[0] in (1, CHANNELS)
    assert errors[1] < 0.01 * errors[2]


def test_dead_channels_go_first_and_cost_next_to_nothing() -> None:
    covariance, weights, cost = drawn()
    for channel in (2, 4):
        at = slice(channel * TAPS, (channel + 1) * TAPS)
        covariance[at] = covariance[:, at] = 0

    order, errors = removed(covariance, weights, cost)

    assert set(order[:2]) == {2, 4}
    assert errors[2] < 0.02 * errors[3]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_singular_covariance_has_an_order(rank: int) -> None:
    _, weights, cost = drawn()
    column = np.random.default_rng(2).standard_normal((CHANNELS * TAPS, max(rank, 1)))
    covariance = column @ column.T * rank

    order, errors = removed(covariance, weights, cost)

    assert len(order) == CHANNELS - 1
    assert np.isfinite(errors).all()
    assert errors == sorted(errors)


def test_a_variance_that_rounding_left_below_zero_is_raised() -> None:
    covariance = torch.diag(torch.tensor([1.0, 1.0, -1e-3], dtype=torch.float64))

    lower = group_obs.factored(covariance, 1e-5)

    raised = (lower @ lower.T - covariance).diagonal()
    assert torch.allclose(raised, raised[0].expand(3))
    assert 1e-3 < float(raised[0]) < 1e-2


def test_a_covariance_that_is_not_finite_is_refused() -> None:
    with pytest.raises(SlimError, match="not finite on these images"):
        group_obs.factored(torch.full((3, 3), torch.nan, dtype=torch.float64), 1e-5)
