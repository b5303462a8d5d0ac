"""Timing of callables: warm-up until the time of a run is steady, then turns of samples. Knows no engine.

To interleave several engines, a caller takes turns of each. The loop costs one reading of the clock and one list entry
for each step of a run, and one more for the run; `python -m benchmarks --modes loop` measures its cost.
"""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from deploy_kit.records.measurements import DeviceTimes

Clock = Callable[[], int]
"""A monotonic clock in nanoseconds."""
Steps = tuple[Callable[[], object], ...]
"""Steps of one run: either (run,) or (copy in, run, copy out)."""
DeviceClock = Callable[[], tuple[float, ...]]
"""The device's own time of each step of the last run, in ms."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Result of a warm-up.

    Attributes:
        runs: Number of runs.
        steady: Whether the time of a run became steady before the time limit.
        median_ms: Median time of a run in the last window, in ms.
    """

    runs: int
    steady: bool
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Samples of one turn.

    Attributes:
        samples_ms: Duration of each run in ms, in order of its end.
        starts_ns: Start of each run in ns, on the machine's monotonic clock.
        h2d_ms: Time of each copy to the device in ms; empty where a run has a single step.
        d2h_ms: Time of each copy from the device in ms; empty where a run has a single step.
        seconds: Wall time of the whole turn in seconds.
        device: Times by the device's own clock; None where it has none.
    """

    samples_ms: tuple[float, ...]
    starts_ns: tuple[int, ...]
    h2d_ms: tuple[float, ...]
    d2h_ms: tuple[float, ...]
    seconds: float
    device: DeviceTimes | None = None


def time_runs(
    steps: Steps,
    n: int,
    seconds: float = 0.0,
    clock: Clock = time.perf_counter_ns,
    device: DeviceClock | None = None,
) -> list[float]:
    """Repeat a run, reading the clock before each run and after each of its steps.

    Readings are only collected here and become samples once the turn is over, so that the loop adds little to a run.
    The device is asked for its times between runs.

    Args:
        steps: Steps of one run.
        n: Least number of runs.
        seconds: Least duration in seconds.
        clock: Monotonic wall clock in ns; ``process_time`` would add up the time of all threads.
        device: The device's own clock; None where there is none.

    Returns:
        ``len(steps) + 1`` readings for each run in ns; with a `device`, followed by its ``len(steps)`` times in ms.
    """
    readings = list[float]()
    note, done, now = readings.append, 0, clock()  # a bound method: looking it up would be in every sample
    until = now + int(seconds * 1e9)
    while done < n or now < until:
        note(clock())
        for step in steps:
            step()
            now = clock()
            note(now)
        if device is not None:
            readings += device()
        done += 1
    return readings


def take_turn(
    streams: Sequence[Steps],
    n: int,
    seconds: float = 0.0,
    clock: Clock = time.perf_counter_ns,
    devices: Sequence[DeviceClock] = (),
) -> Turn:
    """Take one turn after a discarded run of each stream; several streams run at the same time, in a thread each.

    Args:
        streams: Steps of one run, for each stream.
        n: Least number of runs over all streams; it is rounded up to a multiple of the streams.
        seconds: Least duration of the turn in seconds.
        clock: Monotonic wall clock in ns.
        devices: The device's own clock for each stream; empty where there is none.
    """
    clocks = devices or (None,) * len(streams)
    # The first run after a pause is slower: other engines had their turns in between.
    for steps in streams:
        for step in steps:
            step()
    with _no_collector():
        begun = clock()
        if len(streams) == 1:
            readings = time_runs(streams[0], n, seconds, clock, clocks[0])
        else:
            work = [
                partial(time_runs, steps, -(-n // len(streams)), seconds, clock, device)
                for steps, device in zip(streams, clocks, strict=True)
            ]
            columns = _readings_per_run(len(streams[0]), bool(devices))
            readings = _run_together(work, steps=len(streams[0]), columns=columns)
        return _turn_of(readings, len(streams[0]), (clock() - begun) / 1e9, timed=bool(devices))


def sample_ms(run: Callable[[], None], n: int, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Time `n` runs one by one and return their durations in ms."""
    readings = time_runs((run,), n, 0.0, clock)
    return [(ended - begun) / 1e6 for begun, ended in zip(readings[::2], readings[1::2], strict=True)]


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
        run: One run.
        limit_s: Time limit in seconds; it is checked between windows.
        window: Number of runs in a window.
        tolerance: Largest (largest - smallest) / smallest of the three medians that counts as steady.
        clock: Monotonic wall clock in ns.

    Returns:
        Number of runs, the last median, and whether it became steady before the limit.
    """
    begun, medians, runs = clock(), list[float](), 0
    while (clock() - begun) / 1e9 < limit_s:
        medians.append(statistics.median(sample_ms(run, window, clock)))
        runs += window
        last = medians[-3:]
        if len(last) == 3 and max(last) - min(last) <= tolerance * min(last):
            return WarmUp(runs=runs, steady=True, median_ms=medians[-1])
    return WarmUp(runs=runs, steady=False, median_ms=medians[-1] if medians else 0.0)


def device_times_of(turns: Sequence[Turn]) -> DeviceTimes | None:
    """Join the device's own times of all turns; None unless it timed each of them."""
    parts = [turn.device for turn in turns if turn.device is not None]
    if not parts or len(parts) < len(turns):
        return None
    return DeviceTimes(
        compute_ms=tuple(ms for part in parts for ms in part.compute_ms),
        h2d_ms=tuple(ms for part in parts for ms in part.h2d_ms),
        d2h_ms=tuple(ms for part in parts for ms in part.d2h_ms),
    )


def _readings_per_run(steps: int, timed: bool) -> int:
    return steps + 1 + steps * timed


def _run_together(work: Sequence[Callable[[], list[float]]], *, steps: int, columns: int) -> list[float]:
    """Run every stream in a thread of its own, and return all readings in order of the end of their runs."""
    # The barrier lets no stream run alone while other threads are still being started.
    start, series = threading.Barrier(len(work)), list[list[float]]()
    errors = list[BaseException]()

    def stream(timed_runs: Callable[[], list[float]]) -> None:
        start.wait()
        try:
            series.append(timed_runs())
        except BaseException as error:  # noqa: BLE001  # raised again in the calling thread
            errors.append(error)

    threads = [threading.Thread(target=stream, args=(timed_runs,), daemon=True) for timed_runs in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    runs = [readings[i : i + columns] for readings in series for i in range(0, len(readings), columns)]
    return [reading for one in sorted(runs, key=lambda one: one[steps]) for reading in one]


def _turn_of(readings: list[float], steps: int, seconds: float, *, timed: bool) -> Turn:
    width = _readings_per_run(steps, timed)
    columns = [tuple(readings[i::width]) for i in range(width)]
    # The first columns are the host's clock before the run and after each step, the others the device's own times.
    host, device = columns[: steps + 1], columns[steps + 1 :]
    begun, ended = host[0], host[-1]
    h2d, d2h = ((host[0], host[1]), (host[-2], host[-1])) if steps == 3 else (((), ()), ((), ()))
    return Turn(
        samples_ms=_differences_ms(begun, ended),
        starts_ns=tuple(int(start) for start in begun),
        h2d_ms=_differences_ms(*h2d),
        d2h_ms=_differences_ms(*d2h),
        seconds=seconds,
        device=_device_times(device) if timed else None,
    )


def _device_times(columns: Sequence[tuple[float, ...]]) -> DeviceTimes:
    if len(columns) == 1:
        return DeviceTimes(compute_ms=columns[0])
    h2d, compute, d2h = columns
    return DeviceTimes(compute_ms=compute, h2d_ms=h2d, d2h_ms=d2h)


def _differences_ms(begun: Sequence[float], ended: Sequence[float]) -> tuple[float, ...]:
    return tuple((b - a) / 1e6 for a, b in zip(begun, ended, strict=True))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples, as ``timeit`` does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:  # a caller may have disabled it for longer
            gc.enable()
