"""Refits, held against numpy's least squares."""

import numpy as np
import pytest
import torch

from deploy_kit.slimming import ridge
from deploy_kit.slimming.ridge import Centered, RowMoments

WIDTH, OUT = 7, 3


def moments(a: np.ndarray, y: np.ndarray) -> RowMoments:
    made = RowMoments.empty(a.shape[1], y.shape[1])
    made.add(torch.from_numpy(a).float(), torch.from_numpy(y).float())
    return made


def refitted(fitted: RowMoments, held_out: RowMoments, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ridge.refit(fitted, held_out, fitted + held_out, before)


def drawn(n: int, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(9).standard_normal((WIDTH, OUT))
    a = generator.standard_normal((n, WIDTH)) + 0.5
    return a, a @ truth + 2 + noise * generator.standard_normal((n, OUT))


def test_without_noise_it_is_least_squares_with_a_bias() -> None:
    a, y = drawn(500)

    weights, bias = refitted(
        moments(a[:400], y[:400]), moments(a[400:], y[400:]), torch.zeros(WIDTH, OUT, dtype=torch.float64)
    )

    wanted = np.linalg.lstsq(np.c_[a, np.ones(500)], y, rcond=None)[0]
    assert np.abs(weights.numpy() - wanted[:-1]).max() < 1e-3  # the least λ tried is 1e-4 of the variance
    assert np.abs(bias.numpy() - wanted[-1]).max() < 1e-3


def test_a_share_of_the_variance_is_the_ridge_of_the_normal_equations() -> None:
    a, y = drawn(60, noise=1.0)
    before = np.random.default_rng(4).standard_normal((WIDTH, OUT))

    weights, bias = Centered.of(moments(a, y)).solved(torch.from_numpy(before), 0.1)

    centered, target = a - a.mean(0), y - y.mean(0)
    covariance = centered.T @ centered / 60
    damped = covariance + 0.1 * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    wanted = before + np.linalg.solve(damped, centered.T @ target / 60 - covariance @ before)
    assert np.abs(weights.numpy() - wanted).max() < 1e-5
    assert np.abs(bias.numpy() - (y.mean(0) - a.mean(0) @ wanted)).max() < 1e-5


def test_weights_that_held_out_images_like_better_stay() -> None:
    a, y = drawn(12, noise=5.0)
    more, wanted = drawn(400, seed=1)
    truth = torch.from_numpy(np.random.default_rng(9).standard_normal((WIDTH, OUT)))

    weights, bias = refitted(moments(a, y), moments(more, wanted), truth)

    assert torch.equal(weights, truth)
    both = np.concatenate([y - a @ truth.numpy(), wanted - more @ truth.numpy()])
    assert np.abs(bias.numpy() - both.mean(0)).max() < 1e-5


def test_too_few_images_to_hold_any_out_change_little() -> None:
    a, y = drawn(3)
    before = torch.from_numpy(np.random.default_rng(4).standard_normal((WIDTH, OUT)))

    weights, bias = refitted(moments(a, y), RowMoments.empty(WIDTH, OUT), before)

    assert torch.isfinite(weights).all()
    assert torch.isfinite(bias).all()
    assert float((weights - before).norm()) < float(before.norm())


def test_constant_inputs_get_a_bias_alone() -> None:
    a, y = np.ones((50, WIDTH)), drawn(50)[1]
    before = torch.zeros(WIDTH, OUT, dtype=torch.float64)

    weights, bias = refitted(moments(a, y), RowMoments.empty(WIDTH, OUT), before)

    assert np.abs((np.ones(WIDTH) @ weights.numpy() + bias.numpy()) - y.mean(0)).max() < 1e-4


def test_the_residual_is_the_error_of_the_rows() -> None:
    a, y = drawn(40, noise=1.0)
    weights, bias = torch.randn(WIDTH, OUT, dtype=torch.float64), torch.randn(OUT, dtype=torch.float64)

    found = moments(a, y).residual(weights, bias)

    error = y - a @ weights.numpy() - bias.numpy()
    assert found.numpy() == pytest.approx(error.T @ error / 40, rel=1e-4)
