"""Statistics of latency samples: ratios with confidence intervals, and drift over the rounds.

Samples of one engine are autocorrelated, because a machine is fast or slow for a while. Nothing here treats them as
independent: either a round is one observation, or whole blocks are resampled.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

FEWEST_ROUNDS = 6
"""Least number of rounds for a confidence interval: smallest and largest of six observations enclose the median with
1 - 2 · 0.5⁶ = 96.9 %, those of five only with 93.8 %."""
DRIFT_PERCENT = 5.0
"""Least change of the median that counts as drift, in percent; the warm-up calls an engine steady within the same."""
_RESAMPLES = 2000
_MOST_DRAWN = 2000  # samples that a bootstrap draws from: longer series are thinned to the medians of short runs


def ratio_in_turns(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[float, float, float]:
    """Compute the ratio of two latencies that were measured in turns.

    A round is one observation, so what both engines met in it cancels. The interval lies between two symmetric order
    statistics of the ratios that enclose the median with a binomial probability of at least 95 % (Conover, Practical
    Nonparametric Statistics, section 3.2). A bootstrap over a dozen rounds would enclose it in 90 to 94 % only:
    `tests/measure/test_latency.py` counts that.

    Args:
        baseline: Median of the baseline in each round, in ms.
        candidate: Median of the candidate in each round, in ms; the same rounds.

    Returns:
        Median over the rounds of baseline / candidate, and the lower and upper end of its 95 % confidence interval:
        0 and ``inf`` for fewer than `FEWEST_ROUNDS` rounds.
    """
    ratios = [a / b for a, b in zip(baseline, candidate, strict=True)]
    return (statistics.median(ratios), *median_interval(ratios))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Enclose the median of independent observations, e.g. one of each round, between two of them.

    Args:
        values: Observations, in any order.

    Returns:
        Lower and upper end of the 95 % confidence interval: 0 and ``inf`` for fewer than `FEWEST_ROUNDS` observations.
    """
    ordered, n = sorted(values), len(values)
    if n < FEWEST_ROUNDS:
        return 0.0, math.inf
    # Largest k with 2 · P(Bin(n, ½) ≤ k) ≤ 5 %, in integers: the interval drops k observations at each end.
    cut = max(k for k in range(n // 2) if 2 * sum(math.comb(n, i) for i in range(k + 1)) <= 0.05 * 2**n)
    return ordered[cut], ordered[n - 1 - cut]


def ratio_apart(baseline: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Compute the ratio of two latencies that were not measured in turns, by a circular block bootstrap of each series.

    The interval covers how much the machine wanders within a run, but not what changed between the two runs.

    Args:
        baseline: All samples of the baseline in order, in ms.
        candidate: All samples of the candidate in order, in ms.
        seed: Seed of the bootstrap.

    Returns:
        Median of the baseline / median of the candidate, and the lower and upper end of its 95 % percentile interval.
    """
    generator = np.random.default_rng(seed)
    a, b = (np.asarray(series, np.float64) for series in (baseline, candidate))
    # Each series is resampled by itself: samples of two runs have no common order in which they could be paired.
    drawn = _resampled_medians(a, generator) / _resampled_medians(b, generator)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(a) / np.median(b)), float(low), float(high)


def block_length(series: np.ndarray) -> int:
    """Choose the block length of a circular block bootstrap by the rule of Politis and White.

        b = (2 g² / d · n)^(1/3),  g = Σ λ(k/m) |k| γ(k),  d = 4/3 (Σ λ(k/m) γ(k))²,  λ(x) = min(1, 2 (1 - |x|))

    with autocovariances γ, and with m as twice the first lag after which five autocorrelations in a row (more for long
    series) are within 2 √(log10 n / n) of zero. Politis and White, Automatic block-length selection for the dependent
    bootstrap, Econometric Reviews 23 (2004) 53-70; corrected by Patton, Politis and White, 28 (2009) 372-375.

    Args:
        series: (n,) samples in order.

    Returns:
        Block length: at least 1, at most a third of the series and 3 √n.
    """
    n = len(series)
    most = max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    centered = series - series.mean()
    in_a_row = max(5, math.ceil(math.sqrt(math.log10(n)))) if n > 1 else 5
    lags = min(n - 1, math.ceil(math.sqrt(n)) + in_a_row)
    gamma = np.array([float(centered[: n - k] @ centered[k:]) / n for k in range(lags + 1)])
    if lags < 1 or gamma[0] <= 0:  # a single sample, or samples that are all equal
        return 1
    small = np.abs(gamma[1:] / gamma[0]) < 2 * math.sqrt(math.log10(n) / n)
    first = next((k for k in range(len(small) - in_a_row + 1) if small[k : k + in_a_row].all()), None)
    last = np.flatnonzero(~small)
    m = first if first is not None else int(last[-1]) + 1 if len(last) else 0
    m = min(max(1, 2 * m), lags)
    k = np.arange(1, m + 1)
    window = np.minimum(1.0, 2 * (1 - k / m))
    g = 2 * float((window * k * gamma[1 : m + 1]).sum())
    d = 4 / 3 * (gamma[0] + 2 * float((window * gamma[1 : m + 1]).sum())) ** 2
    return int(min(most, max(1, math.ceil((2 * g * g / d * n) ** (1 / 3))))) if d > 0 else 1


def describe_drift(medians: Sequence[float], *, seed: int = 0) -> str:
    """Describe how the latency moved over the rounds: by a step, or by a trend, which shows as a step in its middle.

    Pettitt's test (A non-parametric approach to the change-point problem, Applied Statistics 28 (1979) 126-135), with
    its p-value by permutation because rounds are few. Drift is reported only where p is below 1 % and the medians
    before and after the step differ by more than `DRIFT_PERCENT`; eight rounds are the fewest that can show it.

    Args:
        medians: Median of each round, in order, in ms.
        seed: Seed of the permutations.

    Returns:
        Text such as ``21 % slower from round 8 of 12 on``; empty where no drift is shown.
    """
    n, values = len(medians), np.asarray(medians, np.float64)
    signs = np.sign(values[None, :] - values[:, None])
    statistic, at = _pettitt(signs, np.arange(n)[None, :])
    generator = np.random.default_rng(seed)
    permuted, _ = _pettitt(signs, np.argsort(generator.random((_RESAMPLES, n)), axis=1))
    split = int(at[0]) + 1
    before, after = float(np.median(values[:split])), float(np.median(values[split:])) if split < n else 0.0
    percent = 100 * (after / before - 1)
    p = (1 + int((permuted >= statistic[0]).sum())) / (1 + _RESAMPLES)  # the order that was seen counts as one draw
    if split >= n or p >= 0.01 or abs(percent) <= DRIFT_PERCENT:
        return ""
    word = "slower" if percent > 0 else "faster"
    return f"{abs(percent):.0f} % {word} from round {split + 1} of {n} on"


def _pettitt(signs: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute Pettitt's K = max |U(t)|, U(t) = Σ over i ≤ t < j of sign(xⱼ - xᵢ), and its t, for each order."""
    # Summing over all j is the same as over j > t: the signs of pairs within the first t rounds cancel.
    ordered = signs[orders[:, :, None], orders[:, None, :]]
    totals = np.abs(np.cumsum(ordered.sum(axis=2), axis=1))
    return totals.max(axis=1), totals.argmax(axis=1)


def _resampled_medians(series: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Resample the median from circular blocks of the series: (resamples,)."""
    thinned = _thinned(series)
    n, block = len(thinned), block_length(thinned)
    starts = generator.integers(0, n, (_RESAMPLES, -(-n // block), 1))
    picks = (starts + np.arange(block)).reshape(_RESAMPLES, -1)[:, :n] % n
    return np.asarray(np.median(thinned[picks], axis=1))


def _thinned(series: np.ndarray) -> np.ndarray:
    width = -(-len(series) // _MOST_DRAWN)
    whole = len(series) - len(series) % width
    return np.asarray(np.median(series[:whole].reshape(-1, width), axis=1))
