"""What samples of latency can say: ratios with intervals, block bootstrap, drift over the rounds.

Samples of one engine are autocorrelated: a machine is fast or slow for a while. Nothing here takes them for
independent. Either a round is one observation, or whole blocks are drawn.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

FEWEST_ROUNDS = 6
"""Both ends of six observations hold the median with 1 - 2 · 0.5⁶ = 96.9 %; those of five only with 93.8 %."""
DRIFT_PERCENT = 5.0
_RESAMPLES = 2000
_MOST_DRAWN = 2000  # samples that a bootstrap looks at: longer series are thinned to the medians of short runs


def ratio_in_turns(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[float, float, float]:
    """Compare two latencies measured in turns: a round is one observation, so what both met in it cancels.

    The interval is between two order statistics of the ratios, symmetric, with the binomial probability of holding
    the median of at least 95 % (Conover, Practical Nonparametric Statistics, section 3.2). A bootstrap over a dozen
    rounds holds it in 90 to 94 % only: `tests/test_latency.py` counts that.

    Args:
        baseline: One median per round, in ms.
        candidate: One median per round, same rounds, in ms.

    Returns:
        Median over rounds of baseline / candidate, and its 95 % interval: (0, inf) for fewer than `FEWEST_ROUNDS`.
    """
    ratios = sorted(a / b for a, b in zip(baseline, candidate, strict=True))
    n, middle = len(ratios), statistics.median(ratios)
    if n < FEWEST_ROUNDS:
        return middle, 0.0, math.inf
    cut = max(k for k in range(n // 2) if 2 * sum(math.comb(n, i) for i in range(k + 1)) <= 0.05 * 2**n)
    return middle, ratios[cut], ratios[n - 1 - cut]


def ratio_apart(baseline: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Compare two latencies that were not measured in turns: circular block bootstrap of each series by itself.

    It knows how much the machine wanders within a run, not what changed between the two.

    Args:
        baseline: Every sample in order, in ms.
        candidate: Every sample in order, in ms.
        seed: Of the bootstrap.

    Returns:
        Median of the baseline / median of the candidate, and its 95 % percentile interval.
    """
    generator = np.random.default_rng(seed)
    a, b = (np.asarray(series, np.float64) for series in (baseline, candidate))
    drawn = _medians(a, generator) / _medians(b, generator)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(a) / np.median(b)), float(low), float(high)


def block_length(series: np.ndarray) -> int:
    """Choose the block of a circular block bootstrap by the rule of Politis and White.

        b = (2 g² / d · n)^(1/3),  g = Σ λ(k/m) |k| γ(k),  d = 4/3 (Σ λ(k/m) γ(k))²,  λ(x) = min(1, 2 (1 - |x|))

    with autocovariances γ and twice the first lag as m after which five autocorrelations in a row (more for long
    series) are within 2 √(log10 n / n) of zero. Politis and White, Automatic block-length selection for the dependent
    bootstrap, Econometric Reviews 23 (2004) 53-70; corrected by Patton, Politis and White, 28 (2009) 372-375.

    Args:
        series: (n,) samples in order.

    Returns:
        At least 1, at most a third of the series and 3 √n.
    """
    n = len(series)
    most = max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    centered = series - series.mean()
    in_a_row = max(5, math.ceil(math.sqrt(math.log10(n)))) if n > 1 else 5
    lags = min(n - 1, math.ceil(math.sqrt(n)) + in_a_row)
    gamma = np.array([float(centered[: n - k] @ centered[k:]) / n for k in range(lags + 1)])
    if lags < 1 or gamma[0] <= 0:
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
    """Say whether the latency moved over the rounds: a step, or a trend, which shows as a step in its middle.

    Pettitt's test (A non-parametric approach to the change-point problem, Applied Statistics 28 (1979) 126-135), its
    probability by permutation because rounds are few. Said only where it is below 1 % and the medians before and
    after differ by more than `DRIFT_PERCENT`; eight rounds are the fewest that can show it.

    Args:
        medians: One per round, in order, in ms.
        seed: Of the permutations.

    Returns:
        Words such as ``21 % slower from round 8 of 12 on``; empty where nothing is shown.
    """
    n, values = len(medians), np.asarray(medians, np.float64)
    signs = np.sign(values[None, :] - values[:, None])
    reach, at = _change(signs, np.arange(n)[None, :])
    generator = np.random.default_rng(seed)
    shuffled, _ = _change(signs, np.argsort(generator.random((_RESAMPLES, n)), axis=1))
    split = int(at[0]) + 1
    before, after = float(np.median(values[:split])), float(np.median(values[split:])) if split < n else 0.0
    percent = 100 * (after / before - 1)
    chance = (1 + int((shuffled >= reach[0]).sum())) / (1 + _RESAMPLES)
    if split >= n or chance >= 0.01 or abs(percent) <= DRIFT_PERCENT:
        return ""
    word = "slower" if percent > 0 else "faster"
    return f"{abs(percent):.0f} % {word} from round {split + 1} of {n} on"


def _change(signs: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give Pettitt's K = max |U(t)|, U(t) = Σ over i ≤ t < j of sign(xⱼ - xᵢ), and its t, for each order of rounds."""
    ordered = signs[orders[:, :, None], orders[:, None, :]]
    totals = np.abs(np.cumsum(ordered.sum(axis=2), axis=1))
    return totals.max(axis=1), totals.argmax(axis=1)


def _medians(series: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw the median again and again, from circular blocks of the series: (resamples,)."""
    thinned = _thinned(series)
    n, block = len(thinned), block_length(thinned)
    starts = generator.integers(0, n, (_RESAMPLES, -(-n // block), 1))
    picks = (starts + np.arange(block)).reshape(_RESAMPLES, -1)[:, :n] % n
    return np.asarray(np.median(thinned[picks], axis=1))


def _thinned(series: np.ndarray) -> np.ndarray:
    width = -(-len(series) // _MOST_DRAWN)
    whole = len(series) - len(series) % width
    return np.asarray(np.median(series[:whole].reshape(-1, width), axis=1))
