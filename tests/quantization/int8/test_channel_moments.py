"""Means and deviations behind a bound, against a million drawn numbers and their integers."""

import numpy as np
import pytest
import torch

from deploy_kit.quantization.int8.channel_moments import Moments, clipped, exact, summed, together
from deploy_kit.quantization.int8.grids import asymmetric_grid

GRID = asymmetric_grid(-1, 1)
N = 1_000_000
# A mean of so many numbers is off by σ/1000; five times that.
NOISE = 5e-3
MEANS, STDS = np.array([0.0, 0.4, -0.5, 0.1]), np.array([0.3, 0.15, 0.3, 0.05])
LIMITS = np.array([0.1, -0.1237, -0.2004, 0.3])


def normal(error: float = 0.0) -> Moments:
    return Moments(mean=MEANS, std=STDS, error=np.full(4, error), fixed=np.zeros(4, bool))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Normal numbers: (4, N)."""
    return MEANS[:, None] + STDS[:, None] * np.random.default_rng(0).standard_normal((4, N))


def bounded(x: np.ndarray, limits: np.ndarray, upper: bool) -> np.ndarray:
    return np.minimum(x, limits[:, None]) if upper else np.maximum(x, limits[:, None])


@pytest.mark.parametrize("upper", [False, True], ids=["max", "min"])
def test_mean_and_deviation_are_those_of_drawn_numbers(upper: bool, samples: np.ndarray) -> None:
    y = bounded(samples, LIMITS, upper)

    found = clipped(normal(), LIMITS, GRID, upper=upper)

    np.testing.assert_allclose(found.mean, y.mean(1), atol=NOISE * STDS.max())
    np.testing.assert_allclose(found.std, y.std(1), atol=NOISE * STDS.max())


@pytest.mark.parametrize("upper", [False, True], ids=["max", "min"])
def test_error_is_what_integers_are_off_on_average(upper: bool, samples: np.ndarray) -> None:
    coarse = asymmetric_grid(-8, 8)  # a step of 1/16, so that what is measured is not noise
    whole = bounded(coarse.quantize(samples), coarse.quantize(LIMITS), upper)
    off = coarse.real(whole).mean(1) - bounded(samples, LIMITS, upper).mean(1)

    found = clipped(normal(), LIMITS, coarse, upper=upper)

    # Where the bound cuts the integers near it, half a step stays unaccounted for: a small share of the pixels.
    np.testing.assert_allclose(found.error, off, atol=coarse.scale / 8)
    assert np.abs(off).max() > coarse.scale / 8


def test_formula_for_the_mean_is_that_of_the_truncated_normal_by_integration() -> None:
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    values = np.maximum(MEANS[:, None] + STDS[:, None] * x, LIMITS[:, None])
    mean = np.trapezoid(values * density, x)
    std = np.sqrt(np.trapezoid((values - mean[:, None]) ** 2 * density, x))

    found = clipped(normal(), LIMITS, GRID, upper=False)

    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.std, std, atol=1e-7)


@pytest.mark.parametrize(("upper", "limit"), [(False, -5.0), (True, 5.0)])
def test_bound_beyond_the_grid_that_never_clips_changes_nothing(upper: bool, limit: float) -> None:
    found = clipped(normal(0.01), np.full(4, limit), GRID, upper=upper)

    np.testing.assert_allclose(found.mean, MEANS, atol=1e-12)
    np.testing.assert_allclose(found.std, STDS, atol=1e-9)
    np.testing.assert_array_equal(found.error, 0.01)


@pytest.mark.parametrize(("upper", "limit"), [(False, 5.0), (True, -5.0)])
def test_bound_beyond_the_grid_that_always_clips_gives_the_grids_end(upper: bool, limit: float) -> None:
    found = clipped(normal(0.01), np.full(4, limit), GRID, upper=upper)

    end = GRID.real(np.array([0 if upper else 255]))[0]
    np.testing.assert_allclose(found.mean, limit)
    np.testing.assert_allclose(found.std, 0, atol=1e-6)
    np.testing.assert_allclose(found.error, end - limit)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("limit", [3e38, -3e38, float(np.float32(3e38))])
def test_bound_that_bounds_nothing_changes_nothing(limit: float, upper: bool) -> None:
    found = clipped(normal(0.01), np.full(4, limit), GRID, upper=upper)

    for part, wanted in (("mean", MEANS), ("std", STDS), ("error", np.full(4, 0.01))):
        np.testing.assert_array_equal(getattr(found, part), wanted)


@pytest.mark.parametrize("upper", [False, True])
def test_constant_channel_is_finite(upper: bool) -> None:
    still = exact(np.array([0.2, 0.2, 0.2]), np.zeros(3))

    found = clipped(still, np.array([0.1, 0.2, 0.3]), GRID, upper=upper)

    wanted = np.minimum(0.2, [0.1, 0.2, 0.3]) if upper else np.maximum(0.2, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found.mean, wanted, atol=1e-9)
    assert np.isfinite(found.error).all() and np.isfinite(found.std).all()


@pytest.mark.parametrize(("upper", "limit"), [(False, 5.0), (True, -5.0)])
def test_channel_that_the_grid_cannot_follow_is_fixed_from_there_on(upper: bool, limit: float) -> None:
    fixed = clipped(normal(), np.array([limit, 0.1, limit, -limit]), GRID, upper=upper)
    later = clipped(fixed, np.zeros(4), GRID, upper=upper)

    assert fixed.fixed.tolist() == later.fixed.tolist() == [True, False, True, False]


def test_concatenated_moments_keep_their_order() -> None:
    found = together([normal(0.1), exact(np.ones(1), np.ones(1))])

    assert found.mean.tolist() == [*MEANS, 1]
    assert found.error.tolist() == [0.1] * 4 + [0]


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_sum_is_what_a_convolution_makes_of_a_constant_image(group: int) -> None:
    draw = np.random.default_rng(0)
    weight, channels = draw.standard_normal((12, 6 // group, 3, 3)), draw.standard_normal(6)
    image = np.broadcast_to(channels.reshape(1, 6, 1, 1), (1, 6, 3, 3)).copy()

    wanted = torch.conv2d(torch.from_numpy(image), torch.from_numpy(weight), groups=group)[0, :, 0, 0]

    np.testing.assert_allclose(summed(weight, channels), wanted.numpy(), atol=1e-12)


def test_sum_of_a_matrix_is_its_product() -> None:
    draw = np.random.default_rng(0)
    matrix, x = draw.standard_normal((3, 5)), draw.standard_normal(5)

    np.testing.assert_allclose(summed(matrix, x), matrix @ x)


def test_padding_counts_for_nothing_in_a_sum() -> None:
    draw = np.random.default_rng(0)
    weight, channels = draw.standard_normal((4, 6, 3, 3)), draw.standard_normal(6)
    image = np.broadcast_to(channels.reshape(1, 6, 1, 1), (1, 6, 5, 7)).copy()
    taps = np.outer([4 / 5, 1, 4 / 5], [6 / 7, 1, 6 / 7]).reshape(-1)

    wanted = torch.conv2d(torch.from_numpy(image), torch.from_numpy(weight), padding=1).mean((0, 2, 3))

    np.testing.assert_allclose(summed(weight, channels, taps), wanted.numpy(), atol=1e-12)
    assert np.abs(summed(weight, channels) - wanted.numpy()).max() > 0.1
