"""Histograms → the ends of the range to encode, by method. Arithmetic only, no graph.

`percentile`: (1 − p)/2 of the values are left out at each end, as ONNX Runtime's calibrator does for ranges that are
not symmetric (`onnxruntime.quantization.calibrate.HistogramCollector.compute_percentile`).

`entropy`: the threshold that loses the least information. Let d be the distance from 0, and Hᵢ the histogram of d cut
off after bin i with all beyond added to its last bin; Qᵢ is the same histogram cut off without that, and averaged over
the bins that are not empty within each of 128 levels. The threshold is the end of the bin i, from 128 on, with the
least KL(Hᵢ ‖ Qᵢ). Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017; levels of equal width and the first bin
taken to be as full as the second, as zeros would outweigh all else, from NVIDIA's `pytorch_quantization`
(`calib/histogram.py`, `_compute_amax_entropy`).

`mse`: the ends with the least squared error, of rounding and clipping together:

    E(a, b) = Σ_{x<a} (a − x)² + Σ_{x>b} (x − b)² + N·Δ²/12        Δ = (b − a)/255, N: values inside that are rounded

Source: AIMET's `tf_enhanced` (quantization and saturation cost over candidate ranges) and NNCF's range estimator
HISTOGRAM, which do the same with other candidates; Δ²/12 is the error of rounding what is spread evenly over a step
(Bennett, *Bell System Technical Journal* 27, 1948).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy_kit.quantization.ranges.histogram import BINS, Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
_LEVELS = 128
_STRIDE = 4  # bins from one candidate to the next: a quarter of the time, and the loss is flat about its minimum
_LOWS, _HIGHS = 64, 128  # candidates of `mse` for the lower and the upper end
_STEPS = 255  # steps of an 8-bit grid


@dataclass(frozen=True, kw_only=True)
class Values:
    """The distribution of the values of C channels, clipped to what readers can tell apart.

    Attributes:
        counts: (C, BINS) int64 number of values within the limits, by bin.
        ends: (C, 2) int64 number of values that count as `low` and as `high`: beyond a limit, or far beyond the bins.
        edges: (C, BINS + 1) float64 edges of the bins.
        low: (C,) smallest value.
        high: (C,) largest value.
        anchor: (C,) value from which ranges are widened: 0, or the limit beyond which readers cannot tell values apart.
    """

    counts: np.ndarray
    ends: np.ndarray
    edges: np.ndarray
    low: np.ndarray
    high: np.ndarray
    anchor: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        """The counts with the ends added to their bins, or to the outermost filled bin where they lie beyond all."""
        counts, rows, filled = self.counts.copy(), np.arange(len(self.counts)), self.counts > 0
        outermost = filled.argmax(1), BINS - 1 - filled[:, ::-1].argmax(1)
        for side, end in enumerate((self.low, self.high)):
            inside = (self.edges[:, 0] <= end) & (end < self.edges[:, -1])
            counts[rows, np.where(inside, _bins_of(self, end), outermost[side])] += self.ends[:, side]
        return counts


def values(
    histogram: Histogram,
    low: np.ndarray,
    high: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray] | None = None,
) -> Values:
    """Combine a histogram and the extremes; what lies beyond a limit counts as the limit itself.

    Args:
        histogram: Histogram of C channels.
        low: (C,) smallest values.
        high: (C,) largest values.
        limits: Lowest and highest value that any reader can tell from what lies beyond; ±∞ where there is none.
    """
    counts, edges, ends = histogram.counts.copy(), histogram.edges, histogram.beyond.copy()
    none = np.full(len(counts), np.inf)
    below, above = limits or (-none, none)
    read = below <= above  # otherwise no reader depends on the channel, and any range will do
    bounded = (read & np.isfinite(below), read & np.isfinite(above))
    low = np.where(bounded[0], np.clip(below, low, high), low)
    high = np.where(bounded[1], np.clip(above, low, high), high)
    middle = (edges[:, :-1] + edges[:, 1:]) / 2
    for side, outside in enumerate((middle < low[:, None], middle > high[:, None])):
        outside &= bounded[side][:, None]
        ends[:, side] += np.where(outside, counts, 0).sum(1)
        counts[outside] = 0
    anchor = np.where(bounded[0], low, np.where(bounded[1], high, np.clip(0.0, low, high)))
    return Values(counts=counts, ends=ends, edges=edges, low=low, high=high, anchor=anchor)


def ends(seen: Values, method: Method, percentile: float) -> tuple[np.ndarray, np.ndarray]:
    """Choose the lowest and highest value (C,) of each channel to encode.

    Args:
        seen: The values.
        method: One of the methods above; ``minmax`` encodes the whole range.
        percentile: Share of the values in per cent that ``percentile`` encodes.
    """
    low, high = _METHODS[method](seen, percentile)
    low, high = np.clip(low, seen.low, seen.high), np.clip(high, seen.low, seen.high)
    flat = seen.high <= seen.low
    return np.where(flat, seen.low, low), np.where(flat, seen.high, high)


def _minmax(seen: Values, _: float) -> tuple[np.ndarray, np.ndarray]:
    return seen.low, seen.high


def _percentile(seen: Values, percentile: float) -> tuple[np.ndarray, np.ndarray]:
    """Read both ends off the cumulated counts, even within a bin."""
    cumulated = _cumulated(seen.counts)
    total, cut = cumulated[:, -1] + seen.ends.sum(1), (100.0 - percentile) / 200.0
    below, above = cut * total - seen.ends[:, 0], (1.0 - cut) * total - seen.ends[:, 0]
    low = np.where(below < 0, seen.low, _at(seen, cumulated, below, upper=False))
    high = np.where(above > cumulated[:, -1], seen.high, _at(seen, cumulated, above, upper=True))
    # The zeros behind a ReLU all lie on 0; they are not spread over its bin.
    return np.where((seen.low == 0) & (low < seen.edges[:, 1] - seen.edges[:, 0]), 0.0, low), high


def _at(seen: Values, cumulated: np.ndarray, n_below: np.ndarray, *, upper: bool) -> np.ndarray:
    """Return the value (C,) below which `n_below` (C,) of the values lie, interpolated within its bin."""
    rows = np.arange(len(n_below))
    # The upper end lies in the first bin that reaches the number, the lower one in the first that exceeds it: of empty
    # bins between the two neither range has a part.
    past = cumulated[:, 1:] >= n_below[:, None] if upper else cumulated[:, 1:] > n_below[:, None]
    at = np.where(past.any(1), past.argmax(1), BINS - 1)
    within = (n_below - cumulated[rows, at]) / np.maximum(cumulated[rows, at + 1] - cumulated[rows, at], 1)
    begin, end = seen.edges[rows, at], seen.edges[rows, at + 1]
    return np.asarray(begin + np.clip(within, 0.0, 1.0) * (end - begin))


def _bins_of(seen: Values, value: np.ndarray) -> np.ndarray:
    """Return the index (C,) of the bin that holds a value of each channel."""
    at = np.floor((value - seen.edges[:, 0]) / (seen.edges[:, 1] - seen.edges[:, 0]))
    return np.asarray(np.clip(at, 0, BINS - 1).astype(np.int64))


def _entropy(seen: Values, _: float) -> tuple[np.ndarray, np.ndarray]:
    """Search the threshold on the distance from the anchor that loses the least information."""
    width = seen.edges[:, 1] - seen.edges[:, 0]
    counts = _distances(seen, width)
    counts[:, 0] = counts[:, 1]  # behind a ReLU the zeros would outweigh all other values
    # Rows with the most bins first: the further the search, the fewer rows are left.
    n_used = BINS - (counts[:, ::-1] > 0).argmax(1)
    order = np.argsort(-n_used, kind="stable")
    counts, n_used = counts[order], n_used[order]
    best, chosen = np.full(len(counts), np.inf), n_used.astype(np.float64)
    sums = (_cumulated(counts), _cumulated(counts * _log(counts)), _cumulated((counts > 0).astype(np.float64)))
    for i in range(_LEVELS, BINS + 1, _STRIDE):
        n_open = int((n_used >= i).sum())
        if not n_open:
            break
        lost = _divergence(counts[:n_open], sums[0][:n_open], sums[1][:n_open], sums[2][:n_open], i)
        better = np.flatnonzero(lost <= best[:n_open])
        best[better], chosen[better] = lost[better], i
    reach = np.empty(len(chosen))
    reach[order] = chosen
    reach *= width
    return seen.anchor - reach, seen.anchor + reach


def _distances(seen: Values, width: np.ndarray) -> np.ndarray:
    """Count the values by their distance from the anchor, in bins of the same width."""
    middle = (seen.edges[:, :-1] + seen.edges[:, 1:]) / 2
    at = np.floor(np.abs(middle - seen.anchor[:, None]) / width[:, None]).astype(np.int64)
    flat = np.clip(at, 0, BINS - 1) + BINS * np.arange(len(at))[:, None]
    counts = seen.whole
    there = counts > 0
    return np.bincount(flat[there], weights=counts[there], minlength=counts.size).reshape(counts.shape)


def _divergence(counts: np.ndarray, sums: np.ndarray, logs: np.ndarray, filled: np.ndarray, i: int) -> np.ndarray:
    """Compute KL(H ‖ Q) of the first i bins, both normalized, from sums that were cumulated once.

    From one threshold to the next only the last bin of Σ p·log p changes; Q is constant within a level, so Σ p·log q
    needs only the sums of the levels.
    """
    at = -(-np.arange(_LEVELS + 1) * i // _LEVELS)  # first bin of each level: those from level·i/128 on
    level, n = np.diff(sums[:, at], axis=1), np.diff(filled[:, at], axis=1)
    kept, last = sums[:, i], counts[:, i - 1]
    outside = sums[:, -1] - kept
    total = kept + outside
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = (logs[:, i] - last * _log(last) + (last + outside) * _log(last + outside)) / total - np.log(total)
        # An empty last bin that takes the outliers is no longer empty: its level is averaged over one bin more.
        n[:, -1] += (last == 0) & (outside > 0)
        mean = _log(level) - _log(n) - _log(kept)[:, None]
        cross = ((level * mean).sum(1) + outside * mean[:, -1]) / total
    lost = entropy - cross
    unreachable = (outside > 0) & (level[:, -1] == 0)
    return np.asarray(np.where(unreachable, np.inf, np.maximum(lost, 0.0)))


def _mse(seen: Values, _: float) -> tuple[np.ndarray, np.ndarray]:
    """Search both ends over a grid of candidates."""
    middle = np.clip((seen.edges[:, :-1] + seen.edges[:, 1:]) / 2, seen.low[:, None], seen.high[:, None])
    reach = seen.high - seen.low
    # In units of the range: 1e30 squared would still fit a float64, but digits would be lost.
    unit = np.where(reach > 0, reach, 1.0)
    x = (middle - seen.low[:, None]) / unit[:, None]
    counts = seen.counts.astype(np.float64)
    n, first, second = (_cumulated(counts * x**power) for power in range(3))
    zeros = (seen.edges[:, :-1] <= 0) & (seen.edges[:, 1:] > 0)
    rounded = _cumulated(np.where(zeros, 0.0, counts))  # 0 is on every grid and has no rounding error
    lows, highs = np.arange(_LOWS) / _LOWS, np.arange(1, _HIGHS + 1) / _HIGHS
    at_low, at_high = _index(seen, lows), _index(seen, highs)
    below = [np.take_along_axis(part, at_low, 1) for part in (n, first, second)]
    above = [part[:, -1:] - np.take_along_axis(part, at_high, 1) + seen.ends[:, 1:] for part in (n, first, second)]
    below[0] = below[0] + seen.ends[:, :1]  # in units of the range these lie at 0, those of the upper end at 1
    clipped_low = np.maximum(lows**2 * below[0] - 2 * lows * below[1] + below[2], 0.0)
    clipped_high = np.maximum(above[2] - 2 * highs * above[1] + highs**2 * above[0], 0.0)
    within_low, within_high = np.take_along_axis(rounded, at_low, 1), np.take_along_axis(rounded, at_high, 1)
    best, shares = np.full(len(x), np.inf), np.zeros((2, len(x)))
    for at, low in enumerate(lows):
        inside = within_high - within_low[:, at, None]
        cost = clipped_low[:, at, None] + clipped_high + inside * ((highs - low) / _STEPS) ** 2 / 12
        cost[:, highs <= low] = np.inf
        least = cost.argmin(1)
        lost = cost[np.arange(len(x)), least]
        better = lost < best
        best[better], shares[:, better] = lost[better], np.stack([np.full(better.sum(), low), highs[least[better]]])
    return seen.low + shares[0] * reach, seen.low + shares[1] * reach


def _index(seen: Values, shares: np.ndarray) -> np.ndarray:
    """Count the bins (C, n) below these shares of the range; a bin that a share cuts counts whole or not at all."""
    width, reach = seen.edges[:, 1] - seen.edges[:, 0], seen.high - seen.low
    at = seen.low[:, None] + shares * reach[:, None] - seen.edges[:, :1]
    whole = np.rint(at / width[:, None])
    return np.where(shares == 0.0, 0, np.where(shares == 1.0, BINS, np.clip(whole, 0, BINS))).astype(np.int64)


def _cumulated(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(1)], axis=1)


def _log(x: np.ndarray) -> np.ndarray:
    """Compute log x, with 0 for x = 0, where it is only multiplied by 0."""
    return np.log(np.where(x > 0, x, 1.0))


_METHODS: dict[str, Callable[[Values, float], tuple[np.ndarray, np.ndarray]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
