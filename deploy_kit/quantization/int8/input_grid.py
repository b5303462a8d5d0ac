"""The grid of a float input that was made of pixels: in steps of one channel's pixels, where that rounds less.

    x = (p/255 − μ_c)/σ_c,  p = 0 … 255        step of channel c: 1/(255·σ_c)

Over the range of all channels 255 steps are about as wide as a pixel's, but not quite, so that every pixel is rounded
by another amount, as if a bit of it were lost. In steps of its own a channel's pixels are all off by the same amount,
which a bias corrects. An input of one channel is then read as it is.
"""

import numpy as np

from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.records.artifacts import Preprocess

_PIXELS = np.arange(256.0)
_TIE = 1e-5  # relative: float32 may round a value this near to a tie to either side


def in_steps_of_pixels(grid: Grid, preprocess: Preprocess) -> Grid:
    """Choose between a uint8 grid and those in steps of one channel's pixels, by the variance of the rounding.

    Args:
        grid: The grid of the observed range.
        preprocess: Says what pixels become.

    Returns:
        A grid that holds every pixel to half a step, or `grid`.
    """
    mean, std = (np.array(part)[:, None] for part in (preprocess.mean, preprocess.std))
    values = (_PIXELS / 255 - mean) / std  # (channels, 256)
    found = [grid]
    for step in dict.fromkeys((1 / (255 * std)).reshape(-1)):
        scale = float(np.float32(step))
        one = Grid(scale=scale, zero=int(np.clip(np.rint(-values.min() / scale), 0, 255)))
        if one.raw(values.min()) >= one.low and one.raw(values.max()) <= one.high:
            found.append(one)
    return min(found, key=lambda one: _variance(one, values))


def _variance(grid: Grid, values: np.ndarray) -> float:
    """Compute the variance of the error of values (channels, 256) within each channel, averaged over the channels."""
    near = np.concatenate([values * (1 - _TIE), values * (1 + _TIE)], axis=1)
    return float((grid.real(grid.quantize(near)) - near).var(1).mean())
