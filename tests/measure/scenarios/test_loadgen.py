"""MLPerf's own LoadGen over a session of our own making: its verdict, its sentence, its numbers."""

import time

import pytest

from deploy_kit.base import lazy
from deploy_kit.base.errors import RequestError, StageError
from deploy_kit.measure import scenarios
from deploy_kit.measure.scenarios import TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Turn
from deploy_kit.records.measurements import LoadGenResult

RUN_S = 0.001
# As LoadGen 6.0 writes it, shortened.
INVALID = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Completed samples per second    : 184.74
Result is : INVALID
  Performance constraints satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Try something else.
Early Stopping Result:
 * Run unsuccessful.
 * Processed 100 queries.
 * Would need to run at least 359 more queries,
 with the run being successful.

================================================
Test Parameters Used
================================================
target_qps : 200
"""


def played(name: str, n_streams: int = 1, batch: int = 1, **asked: float) -> tuple[Turn, LoadGenResult]:
    """Run one short test with runs of a millisecond."""
    pytest.importorskip("mlperf_loadgen", reason="pip install 'deploykit[loadgen]'")
    load = TurnLoad(n=100, seconds=0.2, batch=batch, pace_ms=1e3 * RUN_S, **asked)
    turn, said = scenarios.get_scenario(name).run([(lambda: time.sleep(RUN_S),)] * n_streams, load)
    assert said is not None
    return turn, said


def test_a_summary_is_read_with_its_verdict_and_its_sentence() -> None:
    found = _loadgen.read_summary(INVALID)

    assert not found.valid
    assert found.sentence == (
        "Try something else. Run unsuccessful. Processed 100 queries. Would need to run at least 359 more queries, "
        "with the run being successful."
    )


def test_a_summary_keeps_its_numbers_and_not_the_settings() -> None:
    found = dict(_loadgen.read_summary(INVALID).summary)

    assert found["Completed samples per second"] == "184.74"
    assert found["Early stopping satisfied"] == "NO"
    assert "target_qps" not in found


def test_a_budget_that_was_kept_is_not_what_made_it_invalid() -> None:
    found = _loadgen.read_summary(INVALID)

    assert (found.judges_latency, found.over_budget) == (True, False)
    assert _loadgen.read_summary(INVALID.replace("satisfied : Yes", "satisfied : NO")).over_budget


def test_a_summary_without_a_verdict_is_a_failure() -> None:
    with pytest.raises(StageError, match="LoadGen's summary holds no verdict"):
        _loadgen.read_summary("")


def test_single_stream_is_valid_after_enough_queries() -> None:
    turn, said = played("single-stream")

    assert said.valid
    assert dict(said.summary)["Scenario"] == "SingleStream"
    assert len(turn.samples_ms) >= 100


def test_our_times_lie_within_those_of_loadgen() -> None:
    turn, said = played("single-stream")

    # LoadGen's clock starts before ours and ends after it, query by query.
    theirs_ms = [float(dict(said.summary)[f"{which} latency (ns)"]) / 1e6 for which in ("Min", "Max")]
    assert 1e3 * RUN_S <= min(turn.samples_ms) <= theirs_ms[0]
    assert max(turn.samples_ms) <= theirs_ms[1]


def test_multi_stream_asks_for_eight_images_and_is_invalid_after_a_hundred_queries() -> None:
    turn, said = played("multi-stream", batch=8)

    assert (said.valid, len(turn.samples_ms) >= 100) == (False, True)
    assert "Need to process at least 662 queries for early stopping" in said.sentence


def test_a_query_in_several_batches_ends_with_the_last() -> None:
    turn, _ = played("multi-stream", batch=4)

    assert min(turn.samples_ms) >= 2 * 1e3 * RUN_S


def test_streams_share_a_query() -> None:
    turn, _ = played("offline", n_streams=2, batch=4)

    assert len(turn.samples_ms) * 4 >= float(0.2 / RUN_S)


def test_server_is_judged_by_its_budget() -> None:
    _, said = played("server", target_qps=200.0, latency_budget_ms=0.5)

    assert (said.valid, said.judges_latency, said.over_budget) == (False, True, True)


def test_a_run_that_fails_ends_the_test_with_its_error() -> None:
    pytest.importorskip("mlperf_loadgen", reason="pip install 'deploykit[loadgen]'")
    calls = iter([None])

    def die() -> None:
        if next(calls, "done") == "done":
            raise StageError("out of memory")

    with pytest.raises(StageError, match="scenario 'SingleStream': a run failed: out of memory"):
        scenarios.get_scenario("single-stream").run([(die,)], TurnLoad(n=10, seconds=0.01, batch=1, pace_ms=1.0))


def test_without_loadgen_the_reason_says_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loadgen, "library_version", lambda _: "")

    said = "MLPerf scenarios need 'mlcommons-loadgen' on the machine that runs the engine"
    assert scenarios.get_scenario("offline").why_unavailable() == f"{said} (pip install 'deploykit[loadgen]')"


def test_a_device_installs_loadgen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loadgen, "library_version", lambda _: "")
    monkeypatch.setattr(lazy, "_installed", lambda: False)

    assert scenarios.get_scenario("offline").why_unavailable().endswith("(pip install 'mlcommons-loadgen')")


@pytest.mark.parametrize("name", scenarios.scenario_names())
def test_every_scenario_is_found_by_the_name_that_people_write(name: str) -> None:
    entry = scenarios.get_scenario(name)

    assert "_" not in name
    assert entry.rounds >= 1
    assert entry.why_batch_refused(1) == ""


def percentile(samples: tuple[float, ...], percent: float) -> float:
    """Give a percentile as LoadGen does: the sample of that rank."""
    return sorted(samples)[int(len(samples) * percent / 100)]


@pytest.mark.slow
def test_latencies_of_server_are_those_of_loadgen() -> None:
    # 600 queries a second and runs of a millisecond: queries wait for each other, and the waits are in the latencies.
    turn, said = played("server", target_qps=600.0, latency_budget_ms=50.0)

    theirs = dict(said.summary)
    for percent in (50, 90, 99):
        ns = float(theirs[f"{percent:.2f} percentile latency (ns)"])
        assert percentile(turn.samples_ms, percent) == pytest.approx(ns / 1e6, abs=1e-3)
    assert max(turn.samples_ms) == pytest.approx(float(theirs["Max latency (ns)"]) / 1e6, abs=1e-3)


def test_a_query_that_waits_for_a_stall_has_waited() -> None:
    """One run of 100 ms holds all that arrive meanwhile: with the waits left out, one sample would be slow."""
    pytest.importorskip("mlperf_loadgen", reason="pip install 'deploykit[loadgen]'")
    calls = iter(range(10_000))
    load = TurnLoad(n=100, seconds=0.4, batch=1, pace_ms=1.0, target_qps=300.0, latency_budget_ms=5.0)

    turn, _ = scenarios.get_scenario("server").run([(lambda: time.sleep(0.1 if next(calls) == 30 else 5e-4),)], load)

    assert sum(ms > 20 for ms in turn.samples_ms) > 10


def test_a_schedule_is_read_from_the_trace() -> None:
    lines = [
        '{"name":"IssueQuery","ph":"X","pid":1,"tid":1,"ts":297.241,"dur":77.365,"args":{}},',
        '{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":296.831,"args":{"sample_seq":0,"query_seq":0,'
        '"sample_idx":0,"issue_start_ns":190,"complete_ns":1228013}},',
        '{"name":"Sample","cat":"default","ph":"b","pid":1,"id":1,"ts":1296.831,"args":{"sample_seq":1,"query_seq":1,'
        '"sample_idx":0,"issue_start_ns":500,"complete_ns":2000000}},',
    ]

    found = _loadgen.read_schedule(lines, first_ns=5_000_190)

    assert found == [(5_000_000, 6_228_013), (6_000_000, 8_000_000)]


@pytest.mark.slow
def test_an_engine_that_cannot_keep_up_ends_the_test_and_is_told() -> None:
    begun = time.monotonic()
    turn, said = played("server", target_qps=20_000.0, latency_budget_ms=10.0)

    assert time.monotonic() - begun < 20
    assert (said.valid, said.over_budget) == (False, True)
    assert said.sentence.startswith("The engine cannot keep up: ")
    assert len(turn.samples_ms) < 5000


def test_more_queries_than_can_be_planned_are_refused() -> None:
    with pytest.raises(RequestError, match="more than the 2,000,000 that can be planned") as caught:
        played("server", target_qps=1e9, latency_budget_ms=10.0)

    assert caught.value.hint == "--target-qps 10000000 at most, or a shorter --duration"
