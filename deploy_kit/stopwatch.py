"""Time a callable: warm-up until steady, then samples. Knows no engine.

Interleaving several callables is the caller's: it asks each for one turn after the other.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a warm-up ended: runs done, and whether the time of a run became steady."""

    runs: int
    steady: bool


def sample_ms(run: Callable[[], None], n: int, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Time `n` runs one by one, in milliseconds.

    The clock is monotonic and counts wall time: ``process_time`` would add up all threads.
    """
    samples = []
    for _ in range(n):
        begun = clock()
        run()
        samples.append((clock() - begun) / 1e6)
    return samples


def warm_up(
    run: Callable[[], None],
    *,
    limit_s: float,
    window: int = 20,
    tolerance: float = 0.05,
    clock: Clock = time.perf_counter_ns,
) -> WarmUp:
    """Run until the medians of the last three windows lie within `tolerance` of each other.

    Args:
        run: The callable.
        limit_s: Give up after this many seconds.
        window: Runs in one window.
        tolerance: Allowed (largest - smallest) / smallest of the three medians.
        clock: Nanoseconds.

    Returns:
        The number of runs, and False for steady where the limit came first.
    """
    begun, medians, runs = clock(), list[float](), 0
    while (clock() - begun) / 1e9 < limit_s:
        medians.append(statistics.median(sample_ms(run, window, clock)))
        runs += window
        last = medians[-3:]
        if len(last) == 3 and max(last) - min(last) <= tolerance * min(last):
            return WarmUp(runs=runs, steady=True)
    return WarmUp(runs=runs, steady=False)
