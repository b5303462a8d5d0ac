"""Weights rounded by the error of the output: against all roundings there are, and on activations not seen."""

import itertools

import numpy as np
import pytest

from deploy_kit.graph import sums_of_two
from deploy_kit.quantization.int8 import adaptive_rounding

generator = np.random.default_rng(0)


def correlated(n: int, width: int, seed: int) -> np.ndarray:
    """Draw positive, correlated inputs (n, width) float32, as behind a ReLU."""
    mix = np.random.default_rng(99).standard_normal((3, width))
    draw = np.random.default_rng(seed)
    return np.maximum(draw.standard_normal((n, 3)) @ mix + 0.2 * draw.standard_normal((n, width)), 0).astype(np.float32)


def nearest(rows: np.ndarray, scales: np.ndarray, limit: int = 127) -> np.ndarray:
    return np.clip(np.rint(rows / scales[:, None]), -limit, limit)


def drawn(outputs: int, width: int, steps: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """Draw weights, and scales of `steps` steps."""
    rows = np.random.default_rng(7).standard_normal((outputs, width))
    return rows, np.abs(rows).max(1) / steps


def squared_error(rows: np.ndarray, values: np.ndarray, x: np.ndarray, *, centered: bool) -> float:
    """Measure how far outputs are from the float ones, with or without their average."""
    off = x.astype(np.float64) @ (values - rows).T
    return float(((off - off.mean(0)) ** 2 if centered else off**2).mean())


def output_error(difference: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute E[(d·x)²] for each row d of W_q − W."""
    return np.asarray(((difference @ second.astype(np.float64)) * difference).sum(1))


def test_error_of_three_weights_is_the_least_of_all_roundings() -> None:
    rows, scales = drawn(8, 3, steps=5)
    second = adaptive_rounding.second_moments(correlated(2000, 3, 1), centered=True).astype(np.float64)

    found = adaptive_rounding.integers(rows, scales, second.astype(np.float32), limit=5)

    for row, scale, whole in zip(rows, scales, found, strict=True):
        around = [np.arange(np.floor(w / scale) - 1, np.floor(w / scale) + 3).clip(-5, 5) for w in row]
        tried = np.array(list(itertools.product(*around)))
        errors = output_error(tried * scale - row, second)
        own = output_error(whole[None] * scale - row, second)[0]
        rounded = output_error(np.rint(row / scale)[None] * scale - row, second)[0]
        assert own <= rounded * (1 + 1e-6)
        # One weight moves at a time, so a better pair may be missed: then by less than rounding to the nearest is off.
        assert own <= max(errors.min() * 1.0001, 0.5 * (errors.min() + rounded) + 1e-12)


def test_some_optimum_is_not_to_round_to_the_nearest() -> None:
    # Two inputs that are the same, both 0.4 of a step up: nearest loses 0.8 of a step, one up loses 0.2.
    second = np.array([[1.0, 1.0], [1.0, 1.0]], np.float32)

    found = adaptive_rounding.integers(np.array([[0.4, 0.4]]), np.ones(1), second)

    assert sorted(found[0]) == [0, 1]


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("steps", [127, 63, 7])
def test_outputs_of_unseen_activations_are_nearer(steps: int, centered: bool) -> None:
    rows, scales = drawn(16, 150, steps)
    second = adaptive_rounding.second_moments(correlated(4000, 150, 1), centered=centered)

    found = adaptive_rounding.integers(rows, scales, second, limit=steps)

    unseen = correlated(1000, 150, 2)
    by = [scales[:, None] * whole for whole in (found, nearest(rows, scales, steps))]
    own, other = (squared_error(rows, values, unseen, centered=centered) for values in by)
    assert own < other / 2


def test_error_is_never_above_that_of_rounding_to_the_nearest() -> None:
    for seed in range(20):
        rows, scales = drawn(4, 10, steps=9)
        second = adaptive_rounding.second_moments(
            correlated(12, 10, seed), centered=True
        )  # hardly more patches than weights

        found = adaptive_rounding.integers(rows, scales, second, limit=9)

        own = output_error(found * scales[:, None] - rows, second)
        other = output_error(nearest(rows, scales, 9) * scales[:, None] - rows, second)
        assert (own <= other * (1 + 1e-5)).all()


def test_integers_stay_within_the_limit() -> None:
    rows, scales = drawn(16, 60, 63)

    found = adaptive_rounding.integers(
        rows, scales, adaptive_rounding.second_moments(correlated(500, 60, 1), centered=True), limit=63
    )

    assert np.abs(found).max() == 63
    assert (found == np.rint(found)).all()


@pytest.mark.parametrize(("inputs", "taps"), [(24, 1), (5, 9), (1, 9)])
def test_pairs_are_kept_and_the_error_is_still_below_that_of_the_nearest(inputs: int, taps: int) -> None:
    paired = sums_of_two.pairs(inputs, taps)
    rows, _ = drawn(32, inputs * taps)
    scales = sums_of_two.largest(rows, paired) / 127
    second = adaptive_rounding.second_moments(correlated(500, inputs * taps, 3), centered=True)

    found = adaptive_rounding.integers(rows, scales, second, paired=paired)

    assert sums_of_two.largest(found, paired).max() <= sums_of_two.MOST
    errors = [
        output_error(whole * scales[:, None] - rows, second.astype(np.float64))
        for whole in (found, nearest(rows, scales))
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all() and errors[0].sum() < 0.7 * errors[1].sum()


def test_a_pair_at_its_bound_leaves_the_correction_to_others() -> None:
    # Seven inputs that are the same: rounding to the nearest is 2 steps short, which the first weight makes up for.
    rows, second, first = np.array([[64, 64, 0.4, 0.4, 0.4, 0.4, 0.4]]), np.ones((7, 7), np.float32), np.array([[0, 1]])

    free = adaptive_rounding.integers(rows, np.ones(1), second)
    found = adaptive_rounding.integers(rows, np.ones(1), second, paired=first)

    assert free[0].tolist() == [66, 64, 0, 0, 0, 0, 0]
    assert found[0].tolist() == [64, 64, 2, 0, 0, 0, 0]


def test_weights_of_dead_inputs_are_left_to_the_nearest() -> None:
    rows, scales = drawn(4, 8)
    x = correlated(500, 8, 1)
    x[:, [2, 5]] = 0

    found = adaptive_rounding.integers(rows, scales, adaptive_rounding.second_moments(x, centered=True))

    np.testing.assert_array_equal(found[:, [2, 5]], nearest(rows, scales)[:, [2, 5]])


def test_inputs_that_are_all_constant_leave_everything_to_the_nearest() -> None:
    rows, scales = drawn(4, 8)

    found = adaptive_rounding.integers(
        rows, scales, adaptive_rounding.second_moments(np.full((50, 8), 0.5, np.float32), centered=True)
    )

    np.testing.assert_array_equal(found, nearest(rows, scales))


@pytest.mark.parametrize("centered", [False, True])
def test_second_moments_are_numpys_but_for_the_damping(centered: bool) -> None:
    x = correlated(300, 6, 1)

    found = adaptive_rounding.second_moments(x, centered=centered)

    wanted = np.cov(x.T, bias=True) if centered else x.T @ x / len(x)
    np.testing.assert_allclose(found, wanted + 0.01 * np.diag(wanted).mean() * np.eye(6), rtol=1e-4, atol=1e-6)


def test_blocks_of_columns_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, scales = drawn(16, 150)
    second = adaptive_rounding.second_moments(correlated(1000, 150, 1), centered=True)
    whole = adaptive_rounding.integers(rows, scales, second)

    monkeypatch.setattr(adaptive_rounding, "_BLOCK", 1000)

    # A slope that rounds to the other side of a half is all that may differ.
    assert (adaptive_rounding.integers(rows, scales, second) == whole).mean() > 0.99


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_a_wide_layer_is_rounded_by_factors_as_by_the_matrix(paired: bool, centered: bool) -> None:
    rows, scales = drawn(16, 240)
    x = correlated(100, 240, 1)
    pairs = sums_of_two.pairs(240, 1) if paired else sums_of_two.NO_PAIRS
    scales = scales * (2 if paired else 1)
    wanted = np.cov(x.T, bias=True) if centered else x.T @ x / len(x)
    matrix = wanted + 0.01 * np.diag(wanted).mean() * np.eye(240)

    second = adaptive_rounding.second_moments(x, centered=centered)
    assert isinstance(second, adaptive_rounding.Factors)
    found = adaptive_rounding.integers(rows, scales, second, paired=pairs)

    by_matrix = adaptive_rounding.integers(rows, scales, matrix.astype(np.float32), paired=pairs)
    assert (found == by_matrix).mean() > 0.99
    errors = [
        output_error(whole * scales[:, None] - rows, matrix).sum()
        for whole in (found, by_matrix, nearest(rows, scales))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert errors[0] < 0.5 * errors[2]


def test_a_wide_layer_of_constant_inputs_is_rounded_to_the_nearest() -> None:
    rows, scales = drawn(8, 240)
    second = adaptive_rounding.second_moments(np.full((100, 240), 0.5, np.float32), centered=True)

    np.testing.assert_array_equal(adaptive_rounding.integers(rows, scales, second), nearest(rows, scales))
