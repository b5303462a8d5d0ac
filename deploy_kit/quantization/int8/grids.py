"""Ranges → scales and zero points; weights and biases → integers. Arithmetic only, no graph.

    q = clip(round(x / scale) + zero),   x ≈ scale · (q − zero)

Source: ONNX, QuantizeLinear and DequantizeLinear; rounding is half to even.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy_kit.graph import sums_of_two
from deploy_kit.graph.sums_of_two import NO_PAIRS

LIMIT = 127
"""Largest integer of a weight; the smallest is its negative."""
_TINY = 1e-12  # smallest scale: a tensor that is always zero needs some grid
_BIAS_LIMIT = 2.0**30  # half of int32: the sum of products needs the rest


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The quantization grid of one activation: uint8 with a zero point, or int8 around 0.

    Attributes:
        scale: Step between two integers.
        zero: The integer that stands for 0.0.
        signed: int8 instead of uint8.
    """

    scale: float
    zero: int
    signed: bool = False

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -128 if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return 127 if self.signed else 255

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Compute the rounded integers before clipping, as float64."""
        return np.asarray(np.rint(np.asarray(x, np.float64) / self.scale) + self.zero)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Compute the integers, as float64."""
        return np.asarray(np.clip(self.raw(x), self.low, self.high))

    def real(self, q: np.ndarray) -> np.ndarray:
        """Compute the values that integers stand for."""
        return (np.asarray(q, np.float64) - self.zero) * self.scale


def asymmetric_grid(low: float, high: float) -> Grid:
    """Return the uint8 grid from `low` to `high`, widened to hold 0.0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, _TINY)))
    return Grid(scale=scale, zero=int(np.clip(np.rint(-low / scale), 0, 255)))


def symmetric_grid(reach: float) -> Grid:
    """Return the int8 grid from ``-reach`` to ``reach`` with zero point 0."""
    return Grid(scale=float(np.float32(max(reach / 127, _TINY))), zero=0, signed=True)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights and bias of one node as integers.

    Attributes:
        integers: int8 array in the shape of the weights.
        scales: (outputs,) float32 scales of the integers.
        bias: (outputs,) int32 bias in steps of ``input scale · scales``.
    """

    integers: np.ndarray
    scales: np.ndarray
    bias: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The values that the integers stand for, float64."""
        rest = [1] * (self.integers.ndim - 1)
        return self.integers.astype(np.float64) * self.scales.astype(np.float64).reshape(-1, *rest)


@dataclass(frozen=True, kw_only=True)
class ChosenGrid:
    """Integers of weights, float64 in their shape, and the scales (outputs,) float64 that they were chosen for."""

    integers: np.ndarray
    scales: np.ndarray


def quantize_weights(
    array: np.ndarray,
    bias: np.ndarray,
    input_scale: float,
    *,
    paired: np.ndarray = NO_PAIRS,
    chosen: ChosenGrid | None = None,
) -> Weights:
    """Quantize weights symmetrically, with a scale for each output, and the bias to int32.

    A scale grows where the bias would not fit int32 otherwise: channels that are constant have weights near 0 and a
    bias that is not.

    Args:
        array: (outputs, …) float64 weights.
        bias: (outputs,) float64 bias.
        input_scale: Scale of the input.
        paired: (M, 2) indexes of an output's weights whose integers may not exceed `sums_of_two.MOST` together.
        chosen: Integers to use, except where the bias needs a larger scale than theirs.
    """
    scales = channel_scales(array, bias, input_scale, paired)
    rest = [1] * (array.ndim - 1)
    integers = np.clip(np.rint(array / scales.reshape(-1, *rest)), -LIMIT, LIMIT)
    if chosen is not None:
        taken = chosen.scales >= bias_scales(bias, input_scale)
        scales = np.where(taken, chosen.scales, scales)
        integers = np.where(taken.reshape(-1, *rest), chosen.integers, integers)
    return Weights(
        integers=integers.astype(np.int8),
        scales=scales.astype(np.float32),
        bias=quantized_bias(bias, input_scale, scales),
    )


def channel_scales(array: np.ndarray, bias: np.ndarray, input_scale: float, paired: np.ndarray) -> np.ndarray:
    """Return the smallest scale per output that holds its weights, pairs of them, and its bias.

    Two weights whose sum is 127 steps are at most 128 once each is rounded, `sums_of_two.MOST`.

    Returns:
        (outputs,) float32 values as float64.
    """
    reach = sums_of_two.largest(array, paired)
    scales = np.maximum(reach / LIMIT, bias_scales(bias, input_scale))
    # Weights far below the rest of their tensor change nothing; a scale down there would be a denormal number.
    floor = max(float(reach.max()) * 1e-6, _TINY)
    return np.asarray(np.maximum(scales, floor).astype(np.float32).astype(np.float64))


def bias_scales(bias: np.ndarray, input_scale: float) -> np.ndarray:
    """Return the smallest scale per output that holds its bias."""
    return np.asarray(np.abs(bias) / (input_scale * _BIAS_LIMIT))


def quantized_bias(bias: np.ndarray, input_scale: float, scales: np.ndarray) -> np.ndarray:
    """Compute the bias in steps of ``input scale · scales`` as int32.

    The product is taken in float32, as a runtime takes it.
    """
    steps = (np.float32(input_scale) * scales.astype(np.float32)).astype(np.float64)
    return np.clip(np.rint(bias / steps), -(2.0**31) + 1, 2.0**31 - 1).astype(np.int32)


def row_scales(array: np.ndarray, *, one: bool = False) -> np.ndarray:
    """Return the scales that hold weights in −127 … 127: one for each row, (outputs,), or with `one` a scalar."""
    reach = np.abs(array.reshape(len(array), -1)).max(1)
    scales = np.maximum(reach, max(float(reach.max()) * 1e-6, _TINY)) / 127
    return np.asarray(scales.max() if one else scales)


def round_scales_up(scales: np.ndarray | float, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Round scales up to what a type holds, as float64; in half precision none falls below 2⁻²⁰, where digits end."""
    least = np.maximum(np.asarray(scales, np.float64), 2.0**-20 if dtype is np.float16 else 0.0)
    rounded = least.astype(dtype)
    up = np.nextafter(rounded, np.asarray(np.inf, dtype))
    return np.where(rounded.astype(np.float64) < least, up, rounded).astype(np.float64)
