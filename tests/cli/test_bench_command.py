"""``bench`` and ``compare`` as people type them: units, what is meant, how the command ends."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench_records import measurement
from command_line import Said, deploykit

from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _bench_request, _quantities
from deploy_kit.measure import race
from deploy_kit.recipe import BenchTable, Recipe, overrides
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Bench, Measurement
from deploy_kit.stages import bench
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

FAST = ("--rounds", "6", "--runs", "3", "--warmup", "10ms", "--quiet")


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("10s", 10), ("10", 10), ("1.5 s", 1.5), ("2min", 120), ("50us", 5e-5)]
)
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert _quantities.seconds("--duration", text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "10x", "-1s", "0", "nan", "inf", "1e400s", "s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=f"--duration: expected a time, found '{text}'") as caught:
        _quantities.seconds("--duration", text)

    assert caught.value.hint == "e.g. --duration 200ms, or --duration 10s"


@pytest.mark.parametrize(("text", "ms"), [("8ms", 8), ("2.3ms", 2.3), ("0.1s", 100), ("500us", 0.5)])
def test_a_budget_is_read_in_milliseconds(text: str, ms: float) -> None:
    assert _quantities.milliseconds("--latency-budget", text) == ms


def test_a_budget_without_its_unit_is_refused() -> None:
    with pytest.raises(RequestError, match="--latency-budget: expected a time with its unit, found '8'") as caught:
        _quantities.milliseconds("--latency-budget", "8")

    assert caught.value.hint == "e.g. --latency-budget 8ms"


@pytest.mark.parametrize(("text", "percent"), [("3%", 3), ("3", 3), ("0.5 %", 0.5), ("0%", 0)])
def test_a_percentage_is_read(text: str, percent: float) -> None:
    assert _quantities.percent("--fail-on-regression", text) == percent


@pytest.mark.parametrize("text", ["", "x", "-3%", "3%%", "nan"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--fail-on-regression: expected a percentage, found") as caught:
        _quantities.percent("--fail-on-regression", text)

    assert caught.value.hint == "e.g. --fail-on-regression 3%"


@pytest.mark.parametrize("text", ["", "0", "1,", "1,x", "1.5", "-1"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=f"--batch: expected whole numbers above 0, found '{text}'") as caught:
        _quantities.counts("--batch", text)

    assert caught.value.hint == "e.g. --batch 1,8"


def test_batches_and_percentiles_are_lists() -> None:
    assert _quantities.counts("--batch", "1, 8") == [1, 8]
    assert _quantities.percentiles("--percentiles", "50,p99.9") == [50, 99.9]


@pytest.mark.parametrize("text", ["", "0", "100", "50,x"])
def test_what_is_no_percentile_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--percentiles: expected numbers between 0 and 100") as caught:
        _quantities.percentiles("--percentiles", text)

    assert caught.value.hint == "e.g. --percentiles 50,90,99"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scenario", "sever"), "no scenario is called 'sever'"),
        (("--scenario", "server"), "scenario 'server' needs 'target_qps'"),
        (("--streams", "0"), "--streams: input should be greater than 0, found 0"),
        (("--variant", "int9"), "no variant 'int9' was built here"),
        (("--engine", "openvin"), "no engine 'openvin' was built here"),
        (("--batch", "8"), "asked for batch 8, the engine was built for batch 1"),
        (("--baseline", "int9 · onnxruntime"), "--baseline: 'int9 · onnxruntime' is not measured in this run"),
        (("--fail-on-regression", "3%"), "--fail-on-regression: no baseline is measured in this run"),
        (("--baseline", "no.json"), "no.json: no such file"),
    ],
)
def test_a_wrong_request_ends_with_2_and_a_way_out(kept: Store, arguments: tuple[str, ...], words: str) -> None:
    said = deploykit("bench", *arguments, *FAST, "--store", kept.root)

    assert (said.code, words in said.error) == (2, True), said.err


def test_what_was_said_stands_over_the_recipe(tiny: Recipe) -> None:
    part = overrides.with_bench(tiny, {"streams": 2, "runs": None})

    assert (part.streams, part.runs) == (2, tiny.bench.runs)


def test_a_duration_or_another_scenario_puts_the_recipe_s_runs_aside(tiny: Recipe) -> None:
    base = tiny.model_copy(update={"bench": BenchTable(rounds=12, runs=100)})

    timed = overrides.with_bench(base, {"duration_s": 6.0})
    other = overrides.with_bench(base, {"scenario": "offline"})

    assert (race.plan_race(timed).runs, race.plan_race(other).rounds) == (1, 1)


def test_of_each_label_the_newest_that_takes_the_batch_is_meant(line: "Line") -> None:
    one = line.built("fp32", "onnxruntime")
    spec = one.inputs[0]
    eight = dataclasses.replace(one, sha256="8" * 64, inputs=(dataclasses.replace(spec, shape=(8, *spec.shape[1:])),))

    chosen = _bench_request.matching_engines(
        [one, eight], BenchTable(batch=(8, 1)), engines="onnxruntime", variants="fp32"
    )

    assert [entry.batch for entry in bench.entered(chosen, BenchTable(batch=(8, 1)))] == [8, 1]


def test_an_engine_and_a_variant_that_never_met_are_refused(line: "Line") -> None:
    built = [
        line.built("fp32", "onnxruntime"),
        dataclasses.replace(line.built("int8", "onnxruntime"), engine="openvino"),
    ]

    with pytest.raises(RequestError, match="no engine is both 'openvino' and 'fp32'"):
        _bench_request.matching_engines(built, BenchTable(), engines="openvino", variants="fp32")


@pytest.mark.slow
def test_several_variants_are_measured_and_told_with_a_verdict(kept: Store) -> None:
    label = "fp32 · onnxruntime"
    said = deploykit("bench", "--variant", "fp32,int8", "--baseline", label, *FAST, "--store", kept.root)

    assert said.code == 0, said.err
    assert label in said.out
    assert "CI " in said.out


@pytest.mark.slow
def test_json_holds_the_record_and_a_summary_and_is_read_back(kept: Store, tmp_path: Path) -> None:
    said = deploykit("bench", *FAST, "--json", "--store", kept.root)
    (tmp_path / "run.json").write_text(said.out)

    again = deploykit("compare", tmp_path / "run.json", tmp_path / "run.json")

    assert json.loads(said.out)["summary"][0]["request_count"] == 18
    assert (again.code, "within noise" in again.out, "not in turns" in again.out) == (0, True, True), again.err


@pytest.mark.slow
def test_times_are_exported(kept: Store, tmp_path: Path) -> None:
    said = deploykit("bench", *FAST, "--export-times", tmp_path / "times.json", "--store", kept.root)

    assert said.code == 0, said.err
    assert len(json.loads((tmp_path / "times.json").read_text())) == 18


def ended(monkeypatch: pytest.MonkeyPatch, kept: Store, made: Measurement, *arguments: str) -> Said:
    """Run the command over a bench that was made up."""
    engine = kept.all(Artifact, "build")[0]
    fitting = dataclasses.replace(made, artifact=engine.sha256, label=engine.label)
    monkeypatch.setattr(bench, "run", lambda *_, **__: (Bench(measurements=(fitting,)), False))
    return deploykit("bench", "--store", kept.root, *arguments)


def test_a_budget_that_is_not_kept_ends_with_1(monkeypatch: pytest.MonkeyPatch, kept: Store) -> None:
    slow = measurement("one", [9.0] * 20)

    said = ended(monkeypatch, kept, slow, "--latency-budget", "8ms", "--percentiles", "50")

    assert (said.code, "p50 9 ms, at most 8 ms asked for" in said.out) == (1, True), said.err
    assert "limit not kept: int8 · onnxruntime: p50 9 ms" in said.err


def test_a_budget_that_is_kept_ends_with_0(monkeypatch: pytest.MonkeyPatch, kept: Store) -> None:
    said = ended(monkeypatch, kept, measurement("one", [7.0] * 20), "--latency-budget", "8ms", "--percentiles", "50")

    assert said.code == 0, said.err


def test_a_measurement_that_is_not_valid_ends_with_6(monkeypatch: pytest.MonkeyPatch, kept: Store) -> None:
    bad = dataclasses.replace(measurement("one", [7.0] * 20), invalid=("the clock fell by 20 %",))

    said = ended(monkeypatch, kept, bad, "--latency-budget", "8ms", "--percentiles", "50")

    assert (said.code, said.error) == (6, "error: int8 · onnxruntime: the clock fell by 20 %")
    assert "INVALID" in said.out


def test_a_bench_that_lost_its_device_shows_what_came_back_and_ends_with_4(
    monkeypatch: pytest.MonkeyPatch, kept: Store
) -> None:
    cut = dataclasses.replace(measurement("one", [7.0] * 20), stopped="the device was lost in round 3 of 4: gone")

    said = ended(monkeypatch, kept, cut)

    assert (said.code, "7.000 ms" in said.out) == (4, True), said.err
    assert said.error == "error: the device was lost in round 3 of 4: gone; the rounds before it are kept"
    assert "to resume" in said.fix


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run whose one engine took 5 ms."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(codec.to_json(Bench(measurements=(measurement("one", [5.0] * 20),)))))
    return path


def test_a_baseline_that_is_not_valid_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, kept: Store, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    bad = dataclasses.replace(measurement("one", [5.0] * 20), invalid=("the clock fell by 20 %",))
    path.write_text(json.dumps(codec.to_json(Bench(measurements=(bad,)))))
    monkeypatch.setattr(bench, "run", lambda *_, **__: pytest.fail("it was measured"))

    said = deploykit("bench", "--store", kept.root, "--baseline", path, "--allow-invalid")

    assert (said.code, said.error) == (
        6,
        f"error: {path}: one: its measurement is not valid: the clock fell by 20 %",
    )


def test_a_run_that_is_not_valid_is_shown_and_not_held_against_a_baseline(
    monkeypatch: pytest.MonkeyPatch, kept: Store, earlier: Path
) -> None:
    bad = dataclasses.replace(measurement("one", [7.0] * 20), invalid=("the clock fell by 20 %",))

    said = ended(monkeypatch, kept, bad, "--baseline", str(earlier), "--allow-invalid")

    assert (said.code, "7.000 ms" in said.out) == (1, True), said.err
    assert f"limit not kept: not compared with {earlier}: int8 · onnxruntime: the clock fell by 20 %" in said.err


@pytest.mark.parametrize(("ms", "code"), [(5.1, 0), (6.0, 1), (4.0, 0)])
def test_a_regression_against_an_earlier_run_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, kept: Store, earlier: Path, ms: float, code: int
) -> None:
    now = measurement("one", [ms] * 20)

    said = ended(monkeypatch, kept, now, "--baseline", str(earlier), "--fail-on-regression", "3%")

    assert (said.code, "measured apart" in said.out) == (code, True), said.err


def test_compare_ends_with_1_on_a_regression(tmp_path: Path, earlier: Path) -> None:
    slower = tmp_path / "slower.json"
    slower.write_text(json.dumps(codec.to_json(Bench(measurements=(measurement("one", [6.0] * 20),)))))

    said = deploykit("compare", earlier, slower, "--fail-on-regression", "3%")

    assert (said.code, "20.0 % slower than one, at most 3 % asked for" in said.err) == (1, True), said.err


def test_compare_refuses_unlike_runs_with_2(tmp_path: Path, earlier: Path) -> None:
    other = tmp_path / "other.json"
    whole = dataclasses.replace(measurement("one", [6.0] * 20), span="whole")
    other.write_text(json.dumps(codec.to_json(Bench(measurements=(whole,)))))

    said = deploykit("compare", earlier, other)

    assert (said.code, said.error) == (2, "error: one: not measured alike: span compute and whole")


@pytest.mark.slow
def test_engines_take_turns_of_every_batch(line: "Line") -> None:
    spec = line.lean.inputs[0]
    engines = [
        dataclasses.replace(
            line.built(name, "onnxruntime"), inputs=(dataclasses.replace(spec, shape=("n", 1, 16, 16)),)
        )
        for name in ("fp32", "int8")
    ]

    entries = bench.entered(tuple(engines), BenchTable(batch=(1, 4)))

    assert [(entry.engine.name, entry.batch) for entry in entries] == list(itertools.product(("fp32", "int8"), (1, 4)))
