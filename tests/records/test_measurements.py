"""Verdicts in words, and what a reader is told beside a latency."""

import math
from dataclasses import replace

import pytest
from bench_records import measurement

from deploy_kit.analysis import latency_rows
from deploy_kit.records.measurements import Bench, LoadGenResult, SpeedUp, samples_for
from deploy_kit.stages import report


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (1.42, 1.38, 1.47, "1.42× faster, CI 1.38–1.47"),
        (0.5, 0.4, 0.8, "2.00× slower, CI 1.25–2.50"),
        (1.05, 0.99, 1.1, "within noise, CI 0.99–1.10"),
        (1.015, 1.01, 1.02, "within noise, CI 1.01–1.02"),
        (1 / 1.015, 0.98, 0.99, "within noise, CI 0.98–0.99"),
        (1.5, 0.0, math.inf, "1.50×, too few rounds for a verdict"),
    ],
)
def test_a_verdict_is_in_words(ratio: float, low: float, high: float, words: str) -> None:
    assert SpeedUp(ratio=ratio, low=low, high=high, baseline="base").verdict == words


def test_a_verdict_of_runs_apart_says_so() -> None:
    found = SpeedUp(ratio=1.42, low=1.38, high=1.47, baseline="base", interleaved=False)

    assert found.verdict.endswith(", measured apart")


@pytest.mark.parametrize(("percent", "n"), [(50, 20), (90, 100), (95, 200), (99, 1000), (99.9, 10_000)])
def test_a_percentile_needs_ten_samples_beyond_it(percent: float, n: int) -> None:
    assert samples_for(percent) == n


def test_a_reader_is_told_what_loadgen_says_and_what_went_wrong() -> None:
    said = LoadGenResult(valid=False, sentence="Only processed 68 queries.", version="6.0.17", summary=())
    found = replace(
        measurement("one", [1.0]),
        loadgen=said,
        drift="21 % slower from round 8 of 12 on",
        stopped="the device was lost in round 9 of 12: gone",
        resumed_at=(3,),
        invalid=("the clock fell by 20 %",),
    )

    assert report.notes(found) == (
        "LoadGen 6.0.17: INVALID. Only processed 68 queries.",
        "not steady: 21 % slower from round 8 of 12 on",
        "the device was lost in round 9 of 12: gone",
        "taken up again at round 4",
        "not valid: the clock fell by 20 %",
    )


def test_a_quiet_measurement_needs_no_words() -> None:
    assert report.notes(measurement("one", [1.0])) == ()


def test_a_report_remarks_what_was_not_steady_or_not_valid() -> None:
    shaken = replace(measurement("one", [1.0]), drift="9 % faster from round 4 of 12 on", invalid=("throttled",))

    assert latency_rows.unsteady_remarks(Bench(measurements=(shaken,))) == [
        "one was not steady: 9 % faster from round 4 of 12 on",
        "no valid measurement: one: throttled",
    ]
