"""Mean, deviation and mean error of activations, per channel, and behind a maximum. Arithmetic only, no graph.

They serve bias correction: a bias can correct what is off on average, and only that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy_kit.graph.passes.batchnorm_to_max import NEVER
from deploy_kit.quantization.int8.grids import Grid

_SMALLEST = 1e-12  # deviation of a constant channel, by which its distance to the bound is divided


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of one activation, per channel (C,) float64.

    Attributes:
        mean: Mean of the float values.
        std: Standard deviation of the float values.
        error: Mean of the values that its integers stand for, minus `mean`.
        fixed: Whether the channel is constant beyond the grid, so that all its integers are at one end.
    """

    mean: np.ndarray
    std: np.ndarray
    error: np.ndarray
    fixed: np.ndarray


def exact(mean: np.ndarray, std: np.ndarray) -> Moments:
    """Return the moments of an activation whose integers are right on average."""
    return Moments(mean=mean, std=std, error=np.zeros_like(mean), fixed=np.zeros(mean.shape, bool))


def together(parts: Sequence[Moments]) -> Moments:
    """Concatenate moments along the channels."""
    return Moments(
        mean=np.concatenate([part.mean for part in parts]),
        std=np.concatenate([part.std for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        fixed=np.concatenate([part.fixed for part in parts]),
    )


def clipped(x: Moments, limits: np.ndarray, grid: Grid, *, upper: bool) -> Moments:
    """Compute the moments of max(x, t), or with `upper` of min(x, t), as it is computed on integers.

    For a normal x with d = μ − t and z = d/σ, Φ and φ the normal distribution and its density:

        E[max(x, t) − t] = d·Φ(z) + σ·φ(z),   E[(max(x, t) − t)²] = (d² + σ²)·Φ(z) + d·σ·φ(z)

    min(x, t) is its mirror image.

    Args:
        x: Moments of the bounded activation.
        limits: (C,) float bounds t; ±`NEVER` where a channel is not bounded.
        grid: Grid of x and of the result.
        upper: Whether t bounds from above.
    """
    active = np.abs(limits) < NEVER
    t = np.where(active, limits, x.mean)
    sign = -1.0 if upper else 1.0
    d, std = sign * (x.mean - t), np.maximum(x.std, _SMALLEST)
    z = d / std
    share, density = normal(z), np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    excess = d * share + std * density
    square = (d**2 + std**2) * share + d * std * density
    # On integers the bound is t rounded to the grid. Below the grid it never clips, and x keeps its error; above, it
    # always does, and the result is the grid's end; in between, what is clipped is off by the rounding of t.
    raw, nearest = grid.raw(t), grid.real(grid.quantize(t))
    never, always = (raw > grid.high, raw < grid.low) if upper else (raw < grid.low, raw > grid.high)
    error = np.where(never, x.error, np.where(always, nearest - t, (nearest - t) * (1 - share) + x.error * share))
    return Moments(
        mean=np.where(active, t + sign * excess, x.mean),
        std=np.where(active, np.sqrt(np.maximum(square - excess**2, 0.0)), x.std),
        error=np.where(active, error, x.error),
        fixed=np.where(active & always, True, x.fixed),
    )


def summed(weight: np.ndarray, per_channel: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Sum weights (outputs, inputs / groups, …) times a number for each input channel: (outputs,).

    `inside` (taps,) is the share of output pixels for which a tap reads no padding, which is exactly 0.
    """
    outputs, inputs = weight.shape[:2]
    taps = weight.reshape(outputs, inputs, -1)
    kernels = taps.sum(2) if inside is None else taps @ inside
    n_groups = len(per_channel) // inputs
    read = per_channel.reshape(n_groups, inputs).repeat(outputs // n_groups, axis=0)
    return np.asarray((kernels * read).sum(1))


def normal(z: np.ndarray) -> np.ndarray:
    """Compute Φ(z)."""
    return np.array([0.5 * math.erfc(-float(value) / math.sqrt(2.0)) for value in z])
