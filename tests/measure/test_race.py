"""A race that loses its device keeps what came back, and goes on where it was; limits are held against samples."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bench_records import HERE, PART, measurement, pair, timing, turn

from deploy_kit.base.errors import (
    DeployKitError,
    DeviceError,
    LinkLostError,
    MissingPackageError,
    RecipeError,
    RequestError,
    UnknownNameError,
)
from deploy_kit.context import Context
from deploy_kit.measure import race
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Bench, LoadGenResult, SpeedUp
from deploy_kit.stages import bench
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

LOST = "connection to 'jetson' lost: broken pipe"


def losing(folder: Path, after: int) -> Any:
    """Give a link that is lost after so many turns; turn n takes n ms a run."""
    clock = itertools.count(1)

    def time(arguments: dict[str, Any]) -> dict[str, Any]:
        number = next(clock)
        if number > after:
            raise DeviceError(LOST)
        return turn([float(number)] * arguments["n"])

    return timing(folder, time=time)


def test_a_lost_device_keeps_the_rounds_that_all_have_finished(line: "Line", kept: Store, tmp_path: Path) -> None:
    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))

    assert [len(m.rounds) for m in found.measurements] == [2, 2]
    assert found.stopped == f"the device was lost in round 3 of 4: {LOST}"


def test_what_the_device_timed_is_kept_through_a_loss(line: "Line", kept: Store, tmp_path: Path) -> None:
    def timed(after: int) -> Any:
        connection = losing(tmp_path, after)
        host = connection.answers["time"]

        def time(arguments: dict[str, Any]) -> dict[str, Any]:
            answer = host(arguments)
            samples = answer["turn"]["samples_ms"]
            answer["turn"]["device"] = {"compute_ms": [ms / 2 for ms in samples], "h2d_ms": [], "d2h_ms": []}
            return answer

        connection.answers["time"] = time
        return connection

    bench.run(pair(line), PART, Context(store=kept, connection=timed(after=5)))
    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=timed(after=99)))

    for measured in found.measurements:
        assert measured.device is not None
        assert measured.device.compute_ms == tuple(ms / 2 for ms in measured.samples_ms)
        assert measured.resumed_at == (2,)


def test_a_bench_that_was_stopped_is_not_taken_for_a_whole_one(line: "Line", kept: Store, tmp_path: Path) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))

    assert kept.all(Bench, "bench") == []


def test_the_same_call_goes_on_where_it_was(line: "Line", kept: Store, tmp_path: Path) -> None:
    first, _ = bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))

    connection = timing(tmp_path)
    second, reused = bench.run(pair(line), PART, Context(store=kept, connection=connection))

    assert (reused, second.stopped, [m.resumed_at for m in second.measurements]) == (False, "", [(2,), (2,)])
    for before, after in zip(first.measurements, second.measurements, strict=True):
        assert after.samples_ms[: len(before.samples_ms)] == before.samples_ms
        assert (len(after.rounds), len(after.samples_ms), len(after.round_s)) == (4, 20, 4)
    assert [sum(op == "time" for op, _ in worker.asked) for worker in connection.workers] == [0, 2, 2]


def test_times_go_on_after_those_of_the_rounds_before(line: "Line", kept: Store, tmp_path: Path) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))

    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    for m in found.measurements:
        assert max(m.starts_ms[:10]) < min(m.starts_ms[10:])


def test_fresh_begins_anew(line: "Line", kept: Store, tmp_path: Path) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))

    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)), fresh=True)

    assert [m.resumed_at for m in found.measurements] == [(), ()]


def test_what_was_begun_is_forgotten_once_it_is_whole(line: "Line", kept: Store, tmp_path: Path) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=5)))
    bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    assert kept.all(Bench, "bench-begun") == []


def test_a_device_lost_in_the_first_round_is_an_error(line: "Line", kept: Store, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="connection to 'jetson' lost") as caught:
        bench.run(pair(line), PART, Context(store=kept, connection=losing(tmp_path, after=1)))

    assert caught.value.exit_code == 4


@pytest.mark.parametrize("reader", [{"baseline": "x"}, {"percentiles": (50,)}, {"latency_budget_ms": 8.0}])
def test_what_only_judges_does_not_measure_again(
    line: "Line", kept: Store, tmp_path: Path, reader: dict[str, Any]
) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    _, reused = bench.run(pair(line), PART.model_copy(update=reader), Context(store=kept, connection=timing(tmp_path)))

    assert reused


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [{"streams": 2}, {"duration_s": 1.0}, {"min_iters": 50}, {"scenario": "single-stream"}],
    ids=lambda one: next(iter(one)),
)
def test_what_decides_samples_measures_again(line: "Line", kept: Store, tmp_path: Path, other: dict[str, Any]) -> None:
    connection = timing(tmp_path, scenario_why_unavailable={"why": ""})
    bench.run(pair(line), PART, Context(store=kept, connection=connection))

    _, reused = bench.run(pair(line), PART.model_copy(update=other), Context(store=kept, connection=connection))

    assert not reused


@pytest.mark.parametrize(
    ("part", "planned"),
    [
        ({}, (12, 100, 0.0)),
        ({"rounds": 5, "runs": 7}, (5, 7, 0.0)),
        ({"duration_s": 6.0}, (12, 1, 0.5)),
        ({"min_iters": 1000, "runs": 10}, (12, 84, 0.0)),
        ({"scenario": "single-stream"}, (1, 100, 10.0)),
        ({"scenario": "multi-stream", "duration_s": 2.0}, (1, 662, 2.0)),
    ],
)
def test_how_long_is_measured(part: dict[str, Any], planned: tuple[int, int, float]) -> None:
    found = race.plan_race(BenchTable(**part))

    assert (found.rounds, found.runs, found.seconds) == planned


def dynamic(engine: Artifact) -> Artifact:
    spec = engine.inputs[0]
    return replace(engine, inputs=(replace(spec, shape=("batch", *spec.shape[1:])),))


def test_an_engine_of_any_batch_is_measured_at_each(line: "Line") -> None:
    entries = bench.entered((dynamic(pair(line)[0]),), BenchTable(batch=(1, 8)))

    assert [entry.batch for entry in entries] == [1, 8]


def test_the_batch_is_fed_and_recorded(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path, open={"batch": 0, "settings": {}})

    found, _ = bench.run(
        (dynamic(pair(line)[0]),), PART.model_copy(update={"batch": (3,)}), Context(store=kept, connection=connection)
    )

    assert [m.batch for m in found.measurements] == [3]


def test_a_batch_that_an_engine_was_not_built_for_is_refused_with_what_to_do(line: "Line") -> None:
    with pytest.raises(RequestError, match="asked for batch 8, the engine was built for batch 1") as caught:
        bench.entered(pair(line), BenchTable(batch=(8,)))

    assert caught.value.hint == (
        "deploykit export CHECKPOINT --batch 8 (or --dynamic for all), then quantize and build again; "
        "or deploykit deploy CHECKPOINT ... --dynamic"
    )


@pytest.mark.parametrize(
    ("scenario", "batch", "why"),
    [
        ("single-stream", 2, "a query of 'single-stream' is one image, and the engine takes 2"),
        ("multi-stream", 3, "a query of 'multi-stream' is 8 images, and the engine takes 3"),
        ("server", 2, "a query of 'server' is one image, and the engine takes 2"),
    ],
)
def test_a_scenario_refuses_a_batch_that_it_cannot_feed(line: "Line", scenario: str, batch: int, why: str) -> None:
    part = BenchTable(scenario=scenario, batch=(batch,), target_qps=1.0, latency_budget_ms=1.0)

    with pytest.raises(RequestError, match=why):
        bench.entered((dynamic(pair(line)[0]),), part)


@pytest.mark.parametrize(("given", "lack"), [({}, "target_qps"), ({"target_qps": 9.0}, "latency_budget_ms")])
def test_server_needs_a_rate_and_a_budget(given: dict[str, Any], lack: str) -> None:
    with pytest.raises(RecipeError, match=f"scenario 'server' needs '{lack}'") as caught:
        race.verify_bench_table(BenchTable(scenario="server", **given))

    assert caught.value.hint.startswith("e.g. --")


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no scenario is called 'singel-stream'") as caught:
        race.verify_bench_table(BenchTable(scenario="singel-stream"))

    assert caught.value.hint == "did you mean 'single-stream'?"


def test_a_scenario_that_cannot_run_there_gives_its_reason(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path, scenario_why_unavailable={"why": "MLPerf scenarios need 'mlcommons-loadgen'"})

    found, _ = bench.run(pair(line)[:1], BenchTable(scenario="offline"), Context(store=kept, connection=connection))

    assert [entry.why for entry in found.not_run] == ["MLPerf scenarios need 'mlcommons-loadgen'"]


def budget(ms: float) -> BenchTable:
    return BenchTable(latency_budget_ms=ms, percentiles=(50, 90))


def test_a_budget_is_held_against_the_largest_percentile() -> None:
    samples = measurement("one", [1.0] * 80 + [9.0] * 20)

    assert bench.misses(samples, budget(8)) == ("p90 9 ms, at most 8 ms asked for",)
    assert bench.misses(samples, budget(9.5)) == ()


def test_a_budget_that_samples_cannot_judge_is_not_kept() -> None:
    missed = bench.misses(measurement("one", [1.0] * 99), budget(8))

    assert missed == ("p90 cannot be judged: it needs 100 samples (--min-iters 100), 99 were taken",)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "missed"),
    [
        (0.95, 0.94, 0.96, ("5.3 % slower than base, at most 3 % asked for",)),
        (0.98, 0.97, 0.99, ()),
        (0.95, 0.89, 1.01, ()),
        (1.2, 1.1, 1.3, ()),
    ],
)
def test_a_regression_is_one_that_is_shown_and_large(
    ratio: float, low: float, high: float, missed: tuple[str, ...]
) -> None:
    found = SpeedUp(ratio=ratio, low=low, high=high, baseline="base")

    assert bench.misses(measurement("one", [1.0]), BenchTable(fail_on_regression=3), found) == missed


@pytest.mark.parametrize(("constraints", "invalid", "missed"), [("NO", 0, 1), ("Yes", 1, 0)])
def test_what_loadgen_judges_is_a_limit_and_the_rest_is_not_valid(
    line: "Line", kept: Store, tmp_path: Path, constraints: str, invalid: int, missed: int
) -> None:
    summary = (("Performance constraints satisfied", constraints),)
    said = LoadGenResult(valid=False, sentence="Run unsuccessful.", version="6", summary=summary)
    answer = turn([1.0] * 5) | {"loadgen": {**vars(said), "summary": [list(pair) for pair in summary]}}
    connection = timing(tmp_path, scenario_why_unavailable={"why": ""}, time=answer)
    part = BenchTable(scenario="server", target_qps=5.0, latency_budget_ms=8.0)

    found, _ = bench.run(pair(line)[:1], part, Context(store=kept, connection=connection))

    one = found.measurements[0]
    assert (len(found.invalid), len(bench.misses(one, part))) == (invalid, missed)
    assert one.loadgen == said


def test_throughput_counts_all_streams_and_images() -> None:
    two = replace(measurement("one", [1.0] * 100), streams=2, batch=4, round_s=(0.05,))

    assert (two.qps, two.images_per_s) == (2000, 8000)


def test_the_machine_is_that_of_the_worker(line: "Line", kept: Store, tmp_path: Path) -> None:
    found, _ = bench.run(pair(line)[:1], PART, Context(store=kept, connection=timing(tmp_path)))

    assert found.measurements[0].environment == HERE


def test_a_throttle_between_rounds_is_told(line: "Line", kept: Store, tmp_path: Path) -> None:
    clock = itertools.count()

    def time(arguments: dict[str, Any]) -> dict[str, Any]:
        return turn([1.0 if next(clock) < 7 else 1.3] * arguments["n"])

    part = PART.model_copy(update={"rounds": 12})
    found, _ = bench.run(pair(line)[:1], part, Context(store=kept, connection=timing(tmp_path, time=time)))

    assert found.measurements[0].drift == "30 % slower from round 8 of 12 on"


def lacking(error: Exception) -> Any:
    """Give what `open` answers where the engine of the fp32 graph lacks something."""

    def opened(arguments: dict[str, Any]) -> dict[str, Any]:
        if "fp32" in arguments["about"]:
            raise error
        return {"batch": 1, "settings": {"threads": "2"}}

    return opened


@pytest.mark.parametrize("kind", [DeviceError, MissingPackageError])
def test_an_engine_that_lacks_something_there_does_not_take_the_others_with_it(
    line: "Line", kept: Store, tmp_path: Path, kind: type[DeployKitError]
) -> None:
    connection = timing(tmp_path, open=lacking(kind("engine 'x' needs the package 'x'", hint="pip install x")))

    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=connection))

    assert [m.label for m in found.measurements] == ["int8 · onnxruntime"]
    assert [(one.label, one.why) for one in found.not_run] == [
        ("fp32 · onnxruntime", "engine 'x' needs the package 'x' (pip install x)")
    ]


@pytest.mark.parametrize("kind", [DeviceError, MissingPackageError])
def test_where_every_engine_lacks_something_the_first_says_what(
    line: "Line", kept: Store, tmp_path: Path, kind: type[DeployKitError]
) -> None:
    connection = timing(tmp_path, open=lacking(kind("engine 'x' needs the package 'x'")))

    with pytest.raises(kind, match="engine 'x' needs the package 'x'"):
        bench.run(pair(line)[:1], PART, Context(store=kept, connection=connection))


def test_a_device_that_is_lost_in_the_warm_up_is_an_error(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path, open=lacking(LinkLostError(LOST)))

    with pytest.raises(LinkLostError, match=LOST):
        bench.run(pair(line)[::-1], PART, Context(store=kept, connection=connection))
