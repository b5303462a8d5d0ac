"""Tests of stopwatch.py on a clock of our own: what is timed, and when a warm-up counts as steady."""

import inspect
import time

import pytest

from deploy_kit.measure import stopwatch
from deploy_kit.records.measurements import DeviceTimes


class Bench:
    """A clock and a callable whose n-th run takes as long as `duration_ms` says."""

    def __init__(self, duration_ms):
        self.duration_ms = duration_ms
        self.now_ns = 1_000_000_000
        self.runs = 0

    def clock(self):
        return self.now_ns

    def run(self):
        self.now_ns += round(self.duration_ms(self.runs) * 1e6)
        self.runs += 1


def windows(*medians):
    """Give run times of which each window of 20 has one of `medians`; the last goes on."""
    return lambda run: medians[min(run // 20, len(medians) - 1)]


def warm_up(duration_ms, limit_s=10.0, **options):
    bench = Bench(duration_ms)
    return stopwatch.warm_up(bench.run, limit_s=limit_s, clock=bench.clock, **options)


def ended(warm):
    return warm.runs, warm.steady


def test_each_sample_is_the_time_of_its_own_run():
    bench = Bench([1.5, 0.25, 3.0].__getitem__)

    assert stopwatch.sample_ms(bench.run, 3, bench.clock) == [1.5, 0.25, 3.0]


def test_no_runs_give_no_samples():
    bench = Bench([].__getitem__)

    assert stopwatch.sample_ms(bench.run, 0, bench.clock) == []


@pytest.mark.parametrize("function", [stopwatch.sample_ms, stopwatch.warm_up])
def test_the_clock_is_the_monotonic_one_of_highest_resolution(function):
    assert inspect.signature(function).parameters["clock"].default is time.perf_counter_ns


def test_even_runs_are_steady_after_three_windows():
    assert ended(warm_up(lambda run: 1.0)) == (60, True)


def test_slow_first_runs_put_off_steadiness():
    assert ended(warm_up(windows(10.0, 3.0, 1.0))) == (100, True)


def test_runs_that_keep_getting_slower_are_never_steady():
    warm = warm_up(lambda run: 1.002**run, limit_s=10.0)

    assert not warm.steady


def test_runs_that_alternate_between_two_speeds_are_never_steady():
    warm = warm_up(lambda run: 1.0 + (run // 20) % 2, limit_s=10.0)

    assert not warm.steady


def test_three_medians_just_within_the_tolerance_are_steady():
    assert warm_up(windows(1.00, 1.02, 1.049)).runs == 60


def test_three_medians_just_beyond_the_tolerance_are_not_steady():
    assert warm_up(windows(1.00, 1.02, 1.051)).runs > 60


def test_the_slowest_of_three_in_the_middle_counts_too():
    assert warm_up(windows(1.0, 1.2, 1.0)).runs > 60


def test_a_few_outliers_do_not_put_off_steadiness():
    assert ended(warm_up(lambda run: 50.0 if run in (23, 31) else 1.0)) == (60, True)


def test_a_tighter_tolerance_takes_longer():
    assert warm_up(windows(1.00, 1.02, 1.02, 1.02), tolerance=0.01).runs == 80


def test_a_smaller_window_ends_sooner():
    assert ended(warm_up(lambda run: 1.0, window=5)) == (15, True)


def test_the_limit_ends_a_warm_up_after_the_window_at_work():
    warm = warm_up(lambda run: 1.0 + (run // 20) % 2, limit_s=0.05)

    assert ended(warm) == (40, False)


def test_no_time_gives_no_runs():
    assert ended(warm_up(lambda run: 1.0, limit_s=0.0)) == (0, False)


def copying(bench):
    """Give one run of three steps on the bench's clock."""
    return (bench.run, bench.run, bench.run)


def test_the_device_is_asked_between_runs_and_not_while_one_is_timed():
    bench = Bench([9.0, 9.0, 9.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0].__getitem__)

    def device():
        bench.now_ns += 50_000_000  # asking takes long
        return (0.5, 1.5, 3.5)

    turn = stopwatch.take_turn((copying(bench),), 2, clock=bench.clock, devices=(device,))

    assert (turn.samples_ms, turn.h2d_ms, turn.d2h_ms) == ((7.0, 7.0), (1.0, 1.0), (4.0, 4.0))
    assert turn.starts_ns[1] - turn.starts_ns[0] == 57_000_000
    assert turn.device == DeviceTimes(compute_ms=(1.5, 1.5), h2d_ms=(0.5, 0.5), d2h_ms=(3.5, 3.5))


def test_a_device_without_copies_has_times_of_computing_alone():
    bench = Bench(lambda run: 2.0)

    turn = stopwatch.take_turn(((bench.run,),), 2, clock=bench.clock, devices=(lambda: (1.0 + bench.runs,),))

    assert turn.device == DeviceTimes(compute_ms=(3.0, 4.0))


def test_each_stream_keeps_the_times_of_its_own_device():
    slow, fast = (lambda: time.sleep(0.004)), (lambda: time.sleep(0.001))

    turn = stopwatch.take_turn(((slow,), (fast,)), 4, devices=(lambda: (4.0,), lambda: (1.0,)))

    assert turn.device is not None
    assert sorted(turn.device.compute_ms) == [1.0, 1.0, 4.0, 4.0]
    for sample, told in zip(turn.samples_ms, turn.device.compute_ms, strict=True):
        assert sample >= told  # a sleep is never shorter than asked for


def test_without_a_device_s_clock_there_are_no_times_of_it():
    bench = Bench(lambda run: 2.0)

    assert stopwatch.take_turn(((bench.run,),), 2, clock=bench.clock).device is None


def test_the_times_of_turns_are_one_after_the_other_and_none_where_one_turn_has_none():
    bench = Bench(lambda run: 2.0)
    timed = stopwatch.take_turn(((bench.run,),), 1, clock=bench.clock, devices=(lambda: (1.0,),))
    untimed = stopwatch.take_turn(((bench.run,),), 1, clock=bench.clock)

    assert stopwatch.device_times_of([timed, timed]) == DeviceTimes(compute_ms=(1.0, 1.0))
    assert stopwatch.device_times_of([timed, untimed]) is None
