"""Tests of stopwatch.py on a clock of our own: what is timed, and when a warm-up counts as steady."""

import inspect
import time

import pytest

from deploy_kit import stopwatch


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
