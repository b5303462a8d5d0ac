"""Work on a few threads whose results come in order, a bounded number ahead; no thread outlives the iterator."""

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
AHEAD = 2 * THREADS
"""How many results are made before they are asked for."""


def in_order(work: Callable[[int], T], n: int) -> Generator[T, None, None]:
    """Return ``work(0)`` … ``work(n - 1)``, done on threads that decoding keeps busy outside the interpreter's lock.

    An error of `work` reaches the caller at the place of its result. When the iterator is closed or dropped, what has
    not begun is left out and what has begun is waited for.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
    waiting = deque[Future[T]]()
    try:
        for index in range(n):
            waiting.append(pool.submit(work, index))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
