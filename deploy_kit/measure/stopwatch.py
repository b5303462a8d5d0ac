"""Time callables: warm-up until steady, then samples. Knows no engine.

Interleaving several engines is the caller's: it asks each for one turn after the other. A turn costs two readings of
the clock and one list entry each a step: `python -m benchmarks --modes loop` says how long that takes.
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
Steps = tuple[Callable[[], object], ...]
"""One run: either (run,) or (copy in, run, copy out)."""
DeviceClock = Callable[[], tuple[float, ...]]
"""What the device says that each step of the last run took, in ms."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a warm-up ended: runs done, whether the time of a run became steady, and the last median."""

    runs: int
    steady: bool
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The samples of one turn.

    Attributes:
        samples_ms: One a run, in order of its end.
        starts_ns: When each began, on the clock of the machine.
        h2d_ms: What copying in took; empty where a run is one step.
        d2h_ms: What copying out took; empty likewise.
        seconds: Wall time of the whole turn.
        device: What the device timed; None where it has no clock of its own.
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
    """Run `n` times at least and for `seconds` at least; read the clock before each run and after each of its steps.

    The clock is monotonic and counts wall time: ``process_time`` would add up all threads. Readings are only
    collected here and turned into samples once the turn is over. The device is asked between runs.

    Returns:
        ``len(steps) + 1`` readings a run, in nanoseconds; with a `device`, its ``len(steps)`` times in ms behind them.
    """
    readings = list[float]()
    note, done, now = readings.append, 0, clock()
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
    """Take one turn after a discarded run of each stream; several streams run at the same time, a thread each.

    Args:
        streams: One run of each stream.
        n: Runs in all, at least; a multiple of the streams.
        seconds: Of the turn, at least.
        clock: Nanoseconds.
        devices: The device's own clock of each stream; empty where there is none.
    """
    clocks = devices or (None,) * len(streams)
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
            readings = _together(work, steps=len(streams[0]), columns=_columns(len(streams[0]), bool(devices)))
        return _turn(readings, len(streams[0]), (clock() - begun) / 1e9, timed=bool(devices))


def sample_ms(run: Callable[[], None], n: int, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Time `n` runs one by one, in milliseconds."""
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
            return WarmUp(runs=runs, steady=True, median_ms=medians[-1])
    return WarmUp(runs=runs, steady=False, median_ms=medians[-1] if medians else 0.0)


def device_times_of(turns: Sequence[Turn]) -> DeviceTimes | None:
    """Put together what the device timed in all turns; None unless it timed each."""
    parts = [turn.device for turn in turns if turn.device is not None]
    if not parts or len(parts) < len(turns):
        return None
    return DeviceTimes(
        compute_ms=tuple(ms for part in parts for ms in part.compute_ms),
        h2d_ms=tuple(ms for part in parts for ms in part.h2d_ms),
        d2h_ms=tuple(ms for part in parts for ms in part.d2h_ms),
    )


def _columns(steps: int, timed: bool) -> int:
    """Count the readings of one run."""
    return steps + 1 + steps * timed


def _together(work: Sequence[Callable[[], list[float]]], *, steps: int, columns: int) -> list[float]:
    """Let every stream run in a thread of its own; give all readings, by the end of their runs."""
    start, found = threading.Barrier(len(work)), list[list[float]]()
    errors = list[BaseException]()

    def stream(laps: Callable[[], list[float]]) -> None:
        start.wait()
        try:
            found.append(laps())
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that asked
            errors.append(error)

    threads = [threading.Thread(target=stream, args=(laps,), daemon=True) for laps in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    runs = [readings[i : i + columns] for readings in found for i in range(0, len(readings), columns)]
    return [reading for one in sorted(runs, key=lambda one: one[steps]) for reading in one]


def _turn(readings: list[float], steps: int, seconds: float, *, timed: bool) -> Turn:
    width = _columns(steps, timed)
    columns = [tuple(readings[i::width]) for i in range(width)]
    host, device = columns[: steps + 1], columns[steps + 1 :]
    begun, ended = host[0], host[-1]
    h2d, d2h = ((host[0], host[1]), (host[-2], host[-1])) if steps == 3 else (((), ()), ((), ()))
    return Turn(
        samples_ms=_ms(begun, ended),
        starts_ns=tuple(int(start) for start in begun),
        h2d_ms=_ms(*h2d),
        d2h_ms=_ms(*d2h),
        seconds=seconds,
        device=_device(device) if timed else None,
    )


def _device(columns: Sequence[tuple[float, ...]]) -> DeviceTimes:
    if len(columns) == 1:
        return DeviceTimes(compute_ms=columns[0])
    h2d, compute, d2h = columns
    return DeviceTimes(compute_ms=compute, h2d_ms=h2d, d2h_ms=d2h)


def _ms(begun: Sequence[float], ended: Sequence[float]) -> tuple[float, ...]:
    return tuple((b - a) / 1e6 for a, b in zip(begun, ended, strict=True))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples, as ``timeit`` does."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
