"""The grid of an input made of pixels: nothing rounded in one channel, every pixel held, and when it stays as it is."""

import numpy as np
import pytest

from deploy_kit.quantization.int8 import input_grid
from deploy_kit.quantization.int8.grids import asymmetric_grid
from deploy_kit.records.artifacts import Preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616))


def preprocess(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    return Preprocess(height=8, width=8, color="gray" if len(mean) == 1 else "rgb", mean=mean, std=std)


def inputs(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Give what all pixels become, (channels, 256), as a program computes them."""
    pixels = np.arange(256, dtype=np.float32)[None] / np.float32(255)
    column = (np.asarray(part, np.float32)[:, None] for part in (mean, std))
    return (pixels - next(column)) / next(column)


@pytest.mark.parametrize(("mean", "std"), [((0.286,), (0.353,)), ((0.0,), (1.0,)), ((0.1307,), (0.3081,))])
def test_pixels_of_one_channel_are_all_off_by_the_same(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    values = inputs(mean, std).astype(np.float64)
    seen = asymmetric_grid(values.min() * 0.9, values.max() * 0.95)

    grid = input_grid.in_steps_of_pixels(seen, preprocess(mean, std))

    error = grid.real(grid.quantize(values)) - values
    assert np.ptp(grid.quantize(values)) == 255
    assert error.std() < 1e-4 * grid.scale
    assert np.abs(error).max() <= 0.5 * grid.scale


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, CIFAR])
def test_no_channel_is_rounded_worse_and_every_pixel_is_held(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    values = inputs(mean, std).astype(np.float64)
    seen = asymmetric_grid(float(values.min()), float(values.max()))

    grid = input_grid.in_steps_of_pixels(seen, preprocess(mean, std))

    before, after = (one.real(one.quantize(values)) - values for one in (seen, grid))
    assert np.abs(after).max() <= 0.5001 * grid.scale
    assert after.var(1).mean() <= before.var(1).mean()


def test_a_grid_that_would_cut_pixels_is_not_taken() -> None:
    # The first channel needs 255 steps of its own, twice as many of the others'.
    mean, std = (0.48, 0.48, 0.48), (0.25, 0.5, 0.5)
    values = inputs(mean, std).astype(np.float64)
    seen = asymmetric_grid(float(values.min()), float(values.max()))

    grid = input_grid.in_steps_of_pixels(seen, preprocess(mean, std))

    assert grid.scale == pytest.approx(1 / 255 / 0.25, rel=1e-6)
    assert np.abs(grid.real(grid.quantize(values)) - values).max() <= 0.5001 * grid.scale
