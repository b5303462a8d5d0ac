"""Two runs are compared only if they were measured alike, and what differs is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_records import measurement
from report_records import artifact

from deploy_kit.analysis import compare
from deploy_kit.base.errors import InputError, MeasurementError, RequestError
from deploy_kit.records import codec
from deploy_kit.records.engine_table import HEADINGS, cells
from deploy_kit.records.measurements import Bench, Measurement, SpeedUp
from deploy_kit.records.results import EngineRow


def one(label: str = "int8 · openvino", ms: float = 1.0, **facts: Any) -> Measurement:
    made = replace(measurement(label, [ms] * 60), settings=(("threads", "2"),))
    return replace(made, **facts)


def bench_of(*measurements: Measurement) -> Bench:
    return Bench(measurements=measurements)


def elsewhere(**facts: Any) -> Measurement:
    made = one()
    return replace(made, environment=replace(made.environment, **facts))


def refused(candidate: Measurement) -> RequestError:
    with pytest.raises(RequestError) as caught:
        compare.compare_runs(bench_of(one()), bench_of(candidate))
    return caught.value


def test_a_ratio_comes_with_its_interval_and_says_that_it_was_measured_apart() -> None:
    found = compare.compare_runs(bench_of(one(ms=3.0)), bench_of(one(ms=2.0)))

    assert found.rows[0].speed_up.verdict == "1.50× faster, CI 1.50–1.50, measured apart"
    assert "not in turns: what the machine did differently is in the ratio" in found.caveat


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"span": "whole"}, "span compute and whole"),
        ({"batch": 8}, "batch 1 and 8"),
        ({"streams": 2}, "streams 1 and 2"),
        ({"scenario": "offline"}, "scenario closed-loop and offline"),
        ({"settings": (("threads", "4"),)}, "threads 2 and 4"),
        ({"settings": ()}, "threads 2 and nothing"),
    ],
)
def test_unlike_settings_are_refused_and_named(facts: dict[str, Any], words: str) -> None:
    error = refused(one(**facts))

    assert str(error) == f"int8 · openvino: not measured alike: {words}"
    assert error.hint.endswith(f"deploykit compare --allow {words.split()[0]}")


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"cpu": "another"}, "cpu"),
        ({"governor": "powersave"}, "governor"),
        ({"cores": 99}, "cores"),
        ({"isa": ()}, "isa"),
        ({"gpu": "NVIDIA"}, "gpu"),
        ({"versions": (("openvino", "1"),)}, "versions.openvino"),
    ],
)
def test_an_unlike_machine_is_refused_and_named(facts: dict[str, Any], word: str) -> None:
    assert word in str(refused(elsewhere(**facts)))


def test_every_difference_is_named_at_once() -> None:
    error = refused(one(span="whole", streams=2))

    assert "span compute and whole; streams 1 and 2" in str(error)
    assert error.hint.endswith("--allow span,streams")


@pytest.mark.parametrize("facts", [{"load": 9.0}, {"clock_mhz": 1.0}])
def test_what_a_machine_shows_anew_each_moment_may_differ(facts: dict[str, Any]) -> None:
    assert compare.unlike(one(), elsewhere(**facts)) == []


@pytest.mark.parametrize("allow", ["cpu", "environment"])
def test_an_allowed_difference_is_told_beside_the_ratio(allow: str) -> None:
    found = compare.compare_runs(bench_of(one()), bench_of(elsewhere(cpu="another")), allow=(allow,))

    assert found.rows[0].allowed[0].endswith("and another")


def test_engines_are_held_against_their_own_kind() -> None:
    old, new = bench_of(one("a"), one("b", ms=4.0)), bench_of(one("b", ms=2.0), one("c"))

    found = compare.compare_runs(old, new)

    assert [(row.label, row.speed_up.ratio) for row in found.rows] == [("b", 2)]
    assert found.alone == ("a", "c")


def test_two_single_engines_are_held_against_each_other() -> None:
    found = compare.compare_runs(bench_of(one("fp32")), bench_of(one("int8")))

    assert (found.rows[0].label, found.rows[0].speed_up.baseline) == ("int8", "fp32")


def test_runs_without_a_common_engine_are_refused() -> None:
    with pytest.raises(RequestError, match="no engine is in both runs: a, b in the first, c, d in the second"):
        compare.compare_runs(bench_of(one("a"), one("b")), bench_of(one("c"), one("d")))


def test_a_measurement_that_is_not_valid_is_not_compared() -> None:
    wanted = "the other run: int8 · openvino: its measurement is not valid: the clock fell by 20 %"
    with pytest.raises(MeasurementError, match=wanted) as caught:
        compare.compare_runs(bench_of(one()), bench_of(one(invalid=("the clock fell by 20 %",))))

    assert (caught.value.exit_code, "deploykit bench --json" in caught.value.hint) == (6, True)


def test_what_a_machine_shows_anew_each_moment_is_no_difference() -> None:
    old = one()
    new = replace(old, environment=replace(old.environment, load=7.0, clock_mhz=999.0, free_memory_gib=0.5))

    assert compare.unlike(old, new) == []


def test_a_run_is_read_back_with_what_stands_beside_it(tmp_path: Path) -> None:
    found = bench_of(one())
    written = {**codec.to_json(found), "summary": [], "comparison": {}, "beside": {}}
    (tmp_path / "run.json").write_text(json.dumps(written))

    assert compare.read_bench(tmp_path / "run.json") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "expected a run, found none"),
        ("{", "expected a run, found none"),
        ('{"a": 1}', "expected a run, found none: run.json: unknown key 'a'"),
        ('{"measurements": []}', "expected a run, found one without measurements"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(InputError, match=r"run\.json: ") as caught:
        compare.read_bench(tmp_path / "run.json")

    assert words in str(caught.value)
    assert caught.value.hint.startswith("deploykit bench --json > run.json")


def test_a_missing_run_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        compare.read_bench(tmp_path / "no.json")

    assert caught.value.hint == "deploykit bench --json > run.json"


def row_of(label: str, timed: Measurement, precision: str) -> EngineRow:
    name, _, engine = label.partition(" · ")
    return EngineRow(label=label, artifact=artifact(name, engine, precision=precision), measurement=timed)


def test_engines_that_were_measured_in_runs_of_their_own_are_compared_and_say_so() -> None:
    fp32, int8 = one("fp32 · openvino", 2.0), one("int8 · openvino", 1.0)
    other = row_of("fp32 · onnxruntime", one("fp32 · onnxruntime", 9.0), "fp32")

    rows, told = compare.compare_apart(
        [other, row_of("int8 · openvino", int8, "int8"), row_of("fp32 · openvino", fp32, "fp32")]
    )

    found = rows[1].speed_up
    assert told == [] and found is not None and not found.interleaved
    assert (found.ratio, found.baseline) == (2.0, "fp32 · openvino")
    assert "(measured apart)" in dict(zip(HEADINGS, cells(rows[1]), strict=True))["speed-up"]
    assert [row.speed_up for row in (rows[0], rows[2])] == [None, None]


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (None, "no fp32 engine was measured at its batch"),
        (one("fp32 · openvino", batch=8), "no fp32 engine was measured at its batch"),
        (one("fp32 · openvino", invalid=("the clock fell",)), "the times of fp32 · openvino are not valid"),
        (one("fp32 · openvino", settings=(("threads", "1"),)), "not measured alike: threads 1 and 2"),
        (elsewhere(emulated="qemu"), "emulated: not a measurement"),
    ],
)
def test_an_engine_that_cannot_be_compared_says_why(base: Measurement | None, words: str) -> None:
    lonely = row_of("int8 · openvino", one("int8 · openvino"), "int8")
    floats = [] if base is None else [row_of("fp32 · openvino", base, "fp32")]

    (found, *_), (told,) = compare.compare_apart([lonely, *floats])

    assert found.speed_up is None
    assert words in told and told.endswith("deploykit bench --all measures them in one run")


def test_a_speed_up_of_the_same_run_is_kept() -> None:
    own = SpeedUp(ratio=1.5, low=1.4, high=1.6, baseline="fp32 · openvino")
    row = replace(row_of("int8 · openvino", one("int8 · openvino"), "int8"), speed_up=own)

    assert compare.compare_apart([row]) == ([row], [])
