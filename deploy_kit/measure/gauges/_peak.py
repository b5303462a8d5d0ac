"""Peak rates of this machine's cores, measured with numpy: float32 products and memory traffic.

They are measured, because the clock that a virtual machine reports is not the one it runs at, and a datasheet does not
know which cores a process was given.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_SIDE = 1024  # 12 MiB of matrices; larger ones gain nothing
_LIMIT_NS = 2_000_000_000
_BYTES = 1 << 26  # more than any last-level cache of an edge device


def flop_s(clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Measure the rate of a large float32 matrix product in operations per second; a multiply-accumulate is two."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * _SIDE**3 / _fastest_s(lambda: np.matmul(a, b, out=out), clock)


def bandwidth_b_s(clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Measure the traffic in bytes per second, read and written, while all cores copy memory."""
    cores = len(os.sched_getaffinity(0))
    source = np.ones((cores, _BYTES // 8 // cores), np.float64)
    target = np.empty_like(source)
    with ThreadPoolExecutor(cores) as pool:  # numpy releases the interpreter's lock while it copies
        return 2 * source.nbytes / _fastest_s(lambda: list(pool.map(np.copyto, target, source)), clock)


def _fastest_s(run: Callable[[], object], clock: Callable[[], int], repeats: int = 12) -> float:
    """Return the time of the fastest of some runs in s: other load can only add time. Long runs are repeated less."""
    times = list[int]()
    while len(times) < repeats and sum(times) < _LIMIT_NS:
        begun = clock()
        run()
        times.append(clock() - begun)
    return min(times) / 1e9
