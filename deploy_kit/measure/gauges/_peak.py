"""What this machine's cores can do at best, measured: float32 products and memory traffic, by numpy alone.

The clock that a virtual machine states is not the one it runs at, and a datasheet does not know the cores that a
process was given; a rate that was really reached needs neither.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_SIDE = 1024  # 12 MiB of matrices; larger ones gain nothing
_LIMIT_NS = 2_000_000_000
_BYTES = 1 << 26  # beyond any last-level cache of an edge device


def flop_s(clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Measure the float32 rate of a large matrix product, in operations a second; a multiply-accumulate is two."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * _SIDE**3 / _fastest_s(lambda: np.matmul(a, b, out=out), clock)


def bandwidth_b_s(clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Measure the traffic of all cores that copy memory, in bytes a second, read and written."""
    cores = len(os.sched_getaffinity(0))
    source = np.ones((cores, _BYTES // 8 // cores), np.float64)
    target = np.empty_like(source)
    with ThreadPoolExecutor(cores) as pool:  # numpy lets go of the interpreter's lock while it copies
        return 2 * source.nbytes / _fastest_s(lambda: list(pool.map(np.copyto, target, source)), clock)


def _fastest_s(run: Callable[[], object], clock: Callable[[], int], repeats: int = 12) -> float:
    """Give the fastest of some runs, fewer where one takes long: whatever else the machine does can only add."""
    taken = list[int]()
    while len(taken) < repeats and sum(taken) < _LIMIT_NS:
        begun = clock()
        run()
        taken.append(clock() - begun)
    return min(taken) / 1e9
