"""Histograms of activations, one for each channel, whose bins double when a value falls outside: memory is constant.

A bin is [k·w, (k+1)·w) with w a power of two, so that doubling merges pairs exactly: the result is the histogram of all
values together, whatever their order and their batches were.

A value far beyond all others would leave the others in one bin, so it is counted apart. What is far is judged by the
values observed before it: where tails are that heavy, this alone depends on the order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

BINS = 1024
"""Bins of each channel; its values fill between half and all of them."""

FAR = 1024
"""A value is counted apart that lies beyond the others by more than this many times their range."""

_FINEST = -100  # exponent of the least width: its inverse is still a float32
_BLOCK = 1 << 15  # values at a time: intermediates stay in a core's cache, 2 to 3 times as fast as all at once
_SAMPLE = 64  # pixels of each image from which is judged what is far
_DIGITS = 24  # of a float32: numbers of bins stay exact below 2^24
_PARTS = ("counts", "exponents", "starts", "beyond", "inner")

Suspects: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Channels that a batch could have far values in, in ascending order, and the ends (channels, 2) of most of its values
there."""

_NO_SUSPECTS: Suspects = (np.zeros(0, np.int64), np.zeros((0, 2)))


@dataclass(kw_only=True)
class Histogram:
    """Counts of C channels.

    Attributes:
        counts: (C, BINS) int64 number of values in each bin.
        exponents: (C,) int64; a bin is 2**exponent wide.
        starts: (C,) int64 number of the first bin; bin k begins at k·w.
        beyond: (C, 2) int64 number of values far below and far above the bins.
        inner: (C, 2) float64 smallest and largest value in the bins.
    """

    counts: np.ndarray
    exponents: np.ndarray
    starts: np.ndarray
    beyond: np.ndarray
    inner: np.ndarray

    @classmethod
    def empty(cls, channels: int) -> "Histogram":
        """Make a histogram without values."""
        return cls(
            counts=np.zeros((channels, BINS), np.int64),
            exponents=np.full(channels, _FINEST, np.int64),
            starts=np.zeros(channels, np.int64),
            beyond=np.zeros((channels, 2), np.int64),
            inner=np.tile(np.array([np.inf, -np.inf]), (channels, 1)),
        )

    @classmethod
    def holding(cls, inner: np.ndarray) -> "Histogram":
        """Make a histogram without values whose bins hold `inner` (C, 2); (∞, -∞) for channels without bins yet."""
        made = cls.empty(len(inner))
        made._fit(inner.copy(), [])
        return made

    @classmethod
    def of(cls, parts: Mapping[str, np.ndarray], prefix: str) -> "Histogram":
        """Make a histogram from the arrays that `parts` returned."""
        return cls(**{part: parts[f"{prefix}.{part}"].astype(np.float64 if part == "inner" else np.int64)
                      for part in _PARTS})  # fmt: skip

    def parts(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays by name, counts in the narrowest type that holds them."""
        small = np.min_scalar_type(int(self.counts.max(initial=0)))
        return {f"{prefix}.{part}": getattr(self, part) for part in _PARTS} | {
            f"{prefix}.counts": self.counts.astype(small)
        }

    @property
    def width(self) -> np.ndarray:
        """Width of a bin (C,)."""
        return np.asarray(np.ldexp(1.0, self.exponents))

    @property
    def edges(self) -> np.ndarray:
        """Edges of all bins (C, BINS + 1)."""
        return np.asarray((self.starts[:, None] + np.arange(BINS + 1)) * self.width[:, None])

    def add(
        self,
        batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
        suspects: list[Suspects] | None = None,
    ) -> None:
        """Count the values of batches, each as if it were alone.

        Args:
            batches: (N, C, …) float32 values, all finite; (C,) smallest and largest of them.
            suspects: Gets the suspects of each batch, for `reaches` of another histogram.
        """
        told = [] if suspects is None else suspects
        waiting: list[np.ndarray] = []  # counted together, before the bins move: counting costs as much as so many bins
        for values, low, high in batches:
            x = np.ascontiguousarray(values, np.float32).reshape(*values.shape[:2], -1)
            if not ((low >= self.inner[:, 0]).all() and (high <= self.inner[:, 1]).all()):
                x, found = self._widen(x, np.stack([low, high], axis=1).astype(np.float64), waiting)
            else:
                found = _NO_SUSPECTS
            told.append(found)
            waiting.append(x)
        self._count(waiting)

    def reaches(self, bounds: Sequence[np.ndarray], suspects: Sequence[Suspects]) -> list[np.ndarray] | None:
        """Return what the bins hold after each of some batches, by what another histogram knows of them.

        A channel that is suspect here is so there as well if its bins began with no more than these hold.

        Args:
            bounds: (C, 2) float64 smallest and largest value of each batch.
            suspects: What `add` there has told of each.

        Returns:
            (C, 2) for each batch; None where a value is far, which only who has the values can count apart.
        """
        inner, found = self.inner, list[np.ndarray]()
        for bound, (rows, ends) in zip(bounds, suspects, strict=True):
            suspect = _suspects(inner, bound)
            if not np.isin(suspect, rows).all():
                return None
            limits = _limits(inner[suspect], ends[np.searchsorted(rows, suspect)])
            if _outside(bound[suspect], limits).any():
                return None
            inner = _united(inner, bound)
            found.append(inner)
        return found

    def take(self, reaches: Iterable[np.ndarray], other: "Histogram") -> None:
        """Add the counts of another histogram, whose bins move; the result is that of `add` with its values.

        Args:
            reaches: What `reaches` gave for its batches.
            other: It has counted these batches alone, and none of their values is far.
        """
        for reach in reaches:
            self._fit(reach, [])
        doubled = self.exponents - other.exponents
        rows = np.flatnonzero((doubled > 0) | (self.starts != other.starts))
        other._move(rows, doubled[rows], self.starts[rows])
        self.counts += other.counts

    def _widen(self, x: np.ndarray, bounds: np.ndarray, waiting: list[np.ndarray]) -> tuple[np.ndarray, Suspects]:
        """Make room for values within `bounds` (C, 2); returns those to count, and counts apart what is far."""
        suspect = _suspects(self.inner, bounds)
        ends = _ends_of_most(x, suspect) if len(suspect) else np.zeros((0, 2))
        limits = _limits(self.inner[suspect], ends)
        is_far = _outside(bounds[suspect], limits)
        beyond: dict[int, np.ndarray] = {}
        for row, (lowest, highest) in zip(suspect[is_far], limits[is_far], strict=True):
            x = x if beyond else x.copy()
            near = x[:, row][(x[:, row] >= lowest) & (x[:, row] <= highest)]
            bounds[row] = near.min(), near.max()
            beyond[row] = np.array([(x[:, row] < lowest).sum(), (x[:, row] > highest).sum()])
            x[:, row] = np.clip(x[:, row], *bounds[row])
        self._fit(_united(self.inner, bounds), waiting)
        for row, far in beyond.items():
            at = np.floor(bounds[row] / self.width[row]).astype(np.int64) - self.starts[row]
            np.subtract.at(self.counts[row], at, far)  # they are counted there with the others
            self.beyond[row] += far
        return x, (suspect, ends)

    def together(self) -> "Histogram":
        """Return one histogram of all channels: that of the whole tensor."""
        inner = np.array([[self.inner[:, 0].min(), self.inner[:, 1].max()]])
        merged = Histogram.empty(1)
        merged._fit(inner, [])
        finer = merged.exponents[0] - self.exponents
        at = _halved(self.starts[:, None] + np.arange(BINS), finer[:, None]) - merged.starts[0]
        there = self.counts > 0
        merged.counts[0] = _sums(at[there], self.counts[there], BINS)
        merged.beyond[0] = self.beyond.sum(0)
        return merged

    def _fit(self, reach: np.ndarray, waiting: list[np.ndarray]) -> None:
        """Widen and move the bins until they hold `reach` (C, 2), at the smallest width that does.

        What is `waiting` to be counted is counted before they move.
        """
        grown = np.flatnonzero((reach[:, 0] < self.inner[:, 0]) | (reach[:, 1] > self.inner[:, 1]))
        self.inner = reach
        if not len(grown):
            return
        exponents = _exponents(*reach[grown].T)
        first, last = np.floor(reach[grown] / np.ldexp(1.0, exponents)[:, None]).astype(np.int64).T
        doubled, starts = exponents - self.exponents[grown], self.starts[grown]
        changed = (doubled > 0) | (first < starts) | (last >= starts + BINS)
        if changed.any():
            self._count(waiting)
            waiting.clear()
            self._move(grown[changed], doubled[changed], ((first + last + 1 - BINS) // 2)[changed])

    def _move(self, rows: np.ndarray, doubled: np.ndarray, starts: np.ndarray) -> None:
        """Double the bins of some channels `doubled` times and let them begin at `starts`."""
        at = _halved(self.starts[rows, None] + np.arange(BINS), doubled[:, None])
        at += (BINS * np.arange(len(rows)) - starts)[:, None]
        old = self.counts[rows]
        there = old > 0
        self.counts[rows] = _sums(at[there], old[there], BINS * len(rows)).reshape(-1, BINS)
        self.exponents[rows] += doubled
        self.starts[rows] = starts

    def _count(self, batches: list[np.ndarray]) -> None:
        if not batches:
            return
        # Scaling by a power of two is exact, and so is a bin's number, which is below 2^24 in a float32.
        scales = np.ldexp(np.float32(1), -self.exponents).astype(np.float32)[:, None]
        step = max(1, _BLOCK // max(1, sum(x[:, 0].size for x in batches)))
        for first in range(0, len(self.exponents), step):
            rows = slice(first, first + step)
            flat, offsets = self.counts[rows].reshape(-1), BINS * np.arange(len(self.starts[rows])) - self.starts[rows]
            bins = np.concatenate([x[:, rows].swapaxes(0, 1).reshape(len(offsets), -1) for x in batches], axis=1)
            below = np.flatnonzero(bins < 0) if (self.exponents[rows] > 0).any() else ()
            bins *= scales[rows]
            np.floor(bins, out=bins)
            if len(below):  # one that was scaled down to -0 lies in bin -1 all the same
                bins.reshape(-1)[below] = np.minimum(bins.reshape(-1)[below], -1)
            at = (bins.astype(np.int64) + offsets[:, None]).reshape(-1)
            # Counting over all bins costs as much as adding to a fifth of them one by one.
            if 5 * at.size > flat.size:
                flat += np.bincount(at, minlength=flat.size)
            else:
                np.add.at(flat, at, 1)


def _suspects(inner: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the channels that may have far values: others' ranges would not grow that much, and need no sample."""
    reach = _united(inner, bounds)
    range_before = np.maximum(inner[:, 1] - inner[:, 0], 0.0)
    return np.flatnonzero(reach[:, 1] - reach[:, 0] > FAR * range_before)


def _ends_of_most(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the ends (rows, 2) of most values of these channels, by a sample."""
    step = -(-x[0, 0].size // _SAMPLE)
    sample = np.sort(x[:, rows, ::step].swapaxes(0, 1).reshape(len(rows), -1), axis=1).astype(np.float64)
    # Without the outermost 2 %, and one at least, so that a single outlier does not decide what is far.
    cut = min(-(-sample.shape[1] // 50), (sample.shape[1] - 1) // 2)
    return sample[:, [cut, -1 - cut]]


def _limits(inner: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the limits (rows, 2) beyond which a value of some channels is far; ±∞ where most values are equal."""
    most = _united(inner, ends)
    reach = FAR * (most[:, 1] - most[:, 0])
    reach[reach == 0] = np.inf
    return np.stack([most[:, 0] - reach, most[:, 1] + reach], axis=1)


def _outside(bounds: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return np.asarray((bounds[:, 0] < limits[:, 0]) | (bounds[:, 1] > limits[:, 1]))


def _united(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    united = np.empty_like(a)
    np.minimum(a[:, 0], b[:, 0], out=united[:, 0])
    np.maximum(a[:, 1], b[:, 1], out=united[:, 1])
    return united


def _halved(numbers: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the new numbers of bins when their width doubles `times` times."""
    return np.asarray(np.right_shift(numbers, np.minimum(times, 62)))


def _sums(at: np.ndarray, counts: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros(n, np.int64)
    np.add.at(sums, at, counts)
    return sums


def _exponents(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the smallest exponent at which BINS bins hold `low` to `high`, and bin numbers are exact in float32."""
    largest = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1] - _DIGITS + 1
    spread = np.where(high > low, np.frexp((high - low) / BINS)[1], _FINEST)
    exponents = np.maximum(np.maximum(spread, largest), _FINEST).astype(np.int64)
    width = np.ldexp(1.0, exponents)
    return np.asarray(exponents + (np.floor(high / width) - np.floor(low / width) >= BINS))
