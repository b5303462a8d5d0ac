"""Which engine is recommended, on planted records: ties, noise, doubt, invalid latencies, nothing that qualifies."""

import dataclasses
import itertools
from typing import Any

import pytest
from page_records import page_report
from report_records import artifact, measurement, parity

from deploy_kit.analysis.recommendation import recommend, verify_recommendation
from deploy_kit.base.errors import InputError
from deploy_kit.machine.environment import library_version
from deploy_kit.records.measurements import EMULATED, Measurement, NotRun
from deploy_kit.records.parity import Drop
from deploy_kit.records.readings import Energy, Rail
from deploy_kit.records.recommendation import Budgets, Recommendation
from deploy_kit.records.results import EngineRow, Limits, Report

ROUNDS, RUNS = 12, 100


def timed(label: str, ms: float, *, jitter: float = 0.0, **changes: Any) -> Measurement:
    """Give a measurement of twelve rounds around a median; `jitter` is the relative difference between rounds."""
    rounds = [ms * (1 + (jitter if number % 2 else -jitter)) for number in range(ROUNDS)]
    samples = tuple(itertools.chain.from_iterable([one] * RUNS for one in rounds))
    starts = tuple(range(0, ROUNDS * RUNS, RUNS))
    return dataclasses.replace(measurement(label, samples), rounds=starts, **changes)


def engine(
    name: str, ms: float, *, mb: float = 1.0, lost: float = 0.0, high: float = 0.2, limits: Limits | None = None,
    doubts: tuple[str, ...] = (), jitter: float = 0.0, **measured: Any,
) -> EngineRow:  # fmt: skip
    label = f"{name} · openvino"
    checked = parity(
        label,
        drop=Drop(what="top-1", points=lost, low=-high, high=high),
        drop_pp=lost,
        limits=limits or Limits(min_sqnr_db=20),
        doubts=doubts,
    )
    built = artifact(name, "openvino", size_bytes=int(mb * 1e6))
    return EngineRow(
        label=label, artifact=built, parity=checked, measurement=timed(label, ms, jitter=jitter, **measured)
    )


def whys(rows: list[EngineRow], **budgets: float) -> tuple[str, dict[str, str]]:
    found = recommend(rows, Budgets(**budgets))
    return found.winner, {loser.label: loser.why for loser in found.losers}


FP32, INT8 = engine("fp32", 30.0, mb=28), engine("int8", 10.0, mb=7.5, lost=0.1, high=0.3)


def test_the_fastest_wins_and_the_others_are_told_how_much_slower_they_are() -> None:
    assert whys([FP32, INT8]) == ("int8 · openvino", {"fp32 · openvino": "the winner is 3.00× as fast"})
    assert recommend([FP32, INT8], Budgets()).why == "the fastest that qualifies: median 10 ms, 7.50 MB"


@pytest.mark.parametrize(
    ("budgets", "winner", "why"),
    [
        ({"max_drop": 0.25}, "fp32 · openvino", "undecided: too few images: up to 0.3 points lost, at most 0.25"),
        ({"max_drop": 0.05}, "", "0.1 points lost, at most 0.05"),
        ({"latency_ms": 8.0}, "", "p99 10 ms, at most 8 ms"),
        ({"max_size_mb": 7.0}, "", "7.50 MB, at most 7 MB"),
    ],
)
def test_each_budget_takes_an_engine_out_with_its_reason(budgets: dict[str, float], winner: str, why: str) -> None:
    found = whys([FP32, INT8], **budgets)

    assert found[0] == winner or not winner
    assert found[1]["int8 · openvino"] == why


def drawing(name: str, ms: float, *rails: tuple[str, float], why: str = "") -> EngineRow:
    """Give an engine that ran 10 s, 100 images a second; a rail is a name and a mean power in W, 2 W of it idle."""
    read = tuple(
        Rail(name=rail, gauge="ina3221", joules=10 * w, seconds=10, idle_w=2, rate_hz=50, runs=1000, batch=1)
        for rail, w in rails
    )
    return engine(name, ms, energy=Energy(rails=read, why=why))


@pytest.mark.parametrize(
    ("budgets", "why"),
    [
        ({"max_energy_mj": 79.0}, "80 mJ an image above idle on VDD_IN, at most 79"),  # (10 W − 2 W) / 100 a second
        ({"max_power_w": 9.5}, "10 W on VDD_IN, at most 9.5"),
    ],
)
def test_the_rail_that_reads_most_must_keep_the_power_and_energy_budgets(budgets: dict[str, float], why: str) -> None:
    rows = [drawing("int8", 10, ("VDD_CPU", 4.0), ("VDD_IN", 10.0)), drawing("fp32", 30, ("VDD_IN", 9.0))]

    assert whys(rows, **budgets) == ("fp32 · openvino", {"int8 · openvino": why})
    assert whys(rows, max_energy_mj=80, max_power_w=10)[0] == "int8 · openvino"


@pytest.mark.parametrize("budget", ["max_energy_mj", "max_power_w"])
def test_energy_that_was_not_measured_keeps_no_budget(budget: str) -> None:
    rows = [drawing("int8", 10, why="no gauge here"), engine("fp32", 30)]

    winner, losers = whys(rows, **{budget: 50})

    assert (winner, losers["int8 · openvino"]) == ("", "undecided: its energy was not measured: no gauge here")
    assert losers["fp32 · openvino"] == "undecided: its energy was not measured: bench.energy is false"


def test_energy_that_is_not_above_idle_keeps_no_budget() -> None:
    winner, losers = whys([drawing("int8", 10, ("VDD_IN", 1.5))], max_energy_mj=50)  # 2 W when idle

    assert winner == ""
    assert losers["int8 · openvino"].startswith("undecided: VDD_IN drew no more than idle")


def test_all_budgets_that_are_not_kept_are_named() -> None:
    _, losers = whys([INT8], max_drop=0.05, latency_ms=8, max_size_mb=7)

    assert losers["int8 · openvino"] == "0.1 points lost, at most 0.05; p99 10 ms, at most 8 ms; 7.50 MB, at most 7 MB"


def test_within_noise_the_smaller_file_wins_though_its_median_is_higher() -> None:
    rows = [engine("quick", 10.0, mb=9, jitter=0.05), engine("small", 10.3, mb=7)]

    found = recommend(rows, Budgets())

    assert found.winner == "small · openvino"
    assert [(one.label, one.tied) for one in found.losers] == [("quick · openvino", True)]
    assert found.losers[0].why == "within noise of the winner, 2.00 MB larger"
    assert "of those within noise it is the smallest" in found.why


def test_beyond_noise_the_faster_wins_though_it_is_larger() -> None:
    winner, losers = whys([engine("quick", 10.0, mb=9), engine("small", 10.5, mb=7)])

    assert (winner, losers) == ("quick · openvino", {"small · openvino": "the winner is 1.05× as fast"})


def test_noise_is_not_transitive_and_the_reason_names_the_engine_that_is_shown_to_be_faster() -> None:
    rows = [engine("quick", 10.0, mb=9, jitter=0.03), engine("small", 10.2, mb=7, jitter=0.05), engine("c", 10.5, mb=6)]

    winner, losers = whys(rows)

    assert winner == "small · openvino"
    assert losers["quick · openvino"] == "within noise of the winner, 2.00 MB larger"
    assert losers["c · openvino"] == "slower than quick@openvino, 1.05×, and within noise of the winner"


def test_a_difference_that_every_round_shows_is_noise_below_what_two_loads_of_a_file_differ_by() -> None:
    assert whys([engine("quick", 10.0, mb=9), engine("small", 10.1, mb=7)])[0] == "small · openvino"


def test_of_equal_size_the_more_exact_wins_and_then_the_first_by_name() -> None:
    exact = [engine("b", 10.0, high=0.1), engine("a", 10.0, high=0.2)]
    equal = [engine("b", 10.0), engine("a", 10.0)]

    assert whys(exact) == ("b · openvino", {"a · openvino": "within noise of the winner, less exact"})
    assert whys(equal) == ("a · openvino", {"b · openvino": "within noise of the winner, as large"})


def test_an_invalid_latency_wins_nothing() -> None:
    rows = [FP32, engine("int8", 10.0, invalid=("the clock fell",))]

    assert whys(rows) == ("fp32 · openvino", {"int8 · openvino": "undecided: latency INVALID: the clock fell"})


def test_a_doubtful_set_wins_nothing() -> None:
    rows = [engine("fp32", 30.0, doubts=("labels look permuted",))]

    found = recommend(rows, Budgets())

    assert (found.winner, found.why) == ("", "every engine is undecided")
    assert found.losers[0].why == "undecided: labels look permuted"


def test_a_rejected_engine_wins_nothing() -> None:
    _, losers = whys([FP32, engine("int8", 1.0, limits=Limits(min_sqnr_db=90))])

    assert losers == {"int8 · openvino": "rejected: SQNR 31.4 dB, at least 90 asked for"}


def test_an_engine_without_any_limit_is_not_proved_unless_a_budget_judges_it() -> None:
    bare = dataclasses.replace(FP32, parity=dataclasses.replace(FP32.parity, limits=Limits()))  # type: ignore[type-var]

    assert whys([bare])[1] == {"fp32 · openvino": "nothing is proved of its accuracy: no limit is set"}
    assert whys([bare], max_drop=0.5)[0] == "fp32 · openvino"


def test_what_was_not_run_built_or_measured_has_its_reason() -> None:
    absent = NotRun(artifact="d", label="fp16 · tensorrt", why="no NVIDIA GPU")
    rows = [
        EngineRow(label="fp16 · tensorrt", artifact=artifact("fp16", "tensorrt"), parity=absent, measurement=absent),
        EngineRow(label="int8 · tensorrt", artifact=None, failed="the builder gave up"),
        EngineRow(label="int8 · openvino", artifact=None, left_out="openvino is not installed"),
        dataclasses.replace(FP32, measurement=None),
        dataclasses.replace(
            engine("emulated", 9.0), measurement=timed("emulated · openvino", 9.0, environment=_emulated())
        ),
    ]

    winner, losers = whys(rows)

    assert winner == ""
    assert losers == {
        "fp16 · tensorrt": "not run: no NVIDIA GPU",
        "int8 · tensorrt": "failed: the builder gave up",
        "int8 · openvino": "left out: openvino is not installed",
        "fp32 · openvino": "not measured",
        "emulated · openvino": f"its times are {EMULATED}",
    }


def _emulated() -> Any:
    return dataclasses.replace(measurement("a", (1.0,)).environment, emulated="qemu-aarch64-static")


def test_too_few_samples_for_the_percentile_are_undecided() -> None:
    few = dataclasses.replace(INT8, measurement=measurement("int8 · openvino", (1.0,) * 100))

    assert whys([few], latency_ms=8) == (
        "", {"int8 · openvino": "undecided: p99 needs 1,000 samples, 100 were taken"}
    )  # fmt: skip


def test_of_one_engine_at_two_batches_images_per_time_decide() -> None:
    one, eight = engine("int8", 10.0), engine("int8", 40.0, batch=8)

    assert whys([one, eight]) == (
        "int8 · openvino, batch 8",
        {"int8 · openvino, batch 1": "the winner is 2.00× as fast"},
    )


def test_why_nothing_is_recommended_says_whether_a_budget_is_the_reason() -> None:
    unmeasured = dataclasses.replace(FP32, measurement=None)

    assert recommend([unmeasured], Budgets()).why == "no accepted engine was measured"
    assert recommend([INT8], Budgets(max_size_mb=7)).why == "no accepted engine keeps the budgets"


def test_nothing_is_recommended_from_nothing() -> None:
    assert recommend([], Budgets()).why == "no engine was checked"


def test_budgets_are_said_in_words() -> None:
    assert Budgets(latency_ms=8, max_drop=0.3, max_size_mb=10).words == (
        "latency ≤ 8 ms", "drop ≤ 0.3 points", "size ≤ 10 MB"
    )  # fmt: skip


def test_a_budget_that_needs_no_clock_rules_out_though_latencies_are_invalid() -> None:
    invalid = ("the clock fell",)
    rows = [engine("fp32", 30.0, mb=28, invalid=invalid), engine("int8", 10.0, mb=7.5, invalid=invalid)]

    winner, losers = whys(rows, max_size_mb=8.0)

    assert winner == ""
    assert losers["fp32 · openvino"] == "28.00 MB, at most 8 MB"
    assert losers["int8 · openvino"] == "undecided: latency INVALID: the clock fell"


def reported(**changes: Any) -> Report:
    return page_report(version=library_version("deploykit"), **changes)


def advised() -> Recommendation:
    found = reported().recommendation
    assert found is not None
    return found


def test_a_recommendation_is_what_the_rows_give() -> None:
    verify_recommendation(reported(), "report.json")
    verify_recommendation(reported(recommendation=None), "report.json")
    worded = dataclasses.replace(advised(), why=advised().why.replace("the fastest", "fastest"))
    verify_recommendation(reported(recommendation=worded), "report.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"winner": "fp32 · openvino"}, "recommendation: expected each engine of rows once: fp16 · openvino, fp32"),
        ({"winner": "int4 · openvino"}, "found fp16 · openvino, .*int4 · openvino"),
        ({"losers": ()}, "recommendation: expected each engine of rows once: .*, found int8 · onnxruntime$"),
        (
            {"why": "the fastest of all"},
            r"recommendation\.why: expected the fastest .*, as the rows give, found the fastest",
        ),
        ({"budgets": Budgets(max_size_mb=0.2)}, r"recommendation\.(winner|why): expected .*, as the rows give, found "),
    ],
)
def test_a_recommendation_that_the_rows_do_not_give_is_refused(changes: dict[str, Any], words: str) -> None:
    edited = reported(recommendation=dataclasses.replace(advised(), **changes))

    with pytest.raises(InputError, match=rf"report\.json\..*{words}"):
        verify_recommendation(edited, "report.json")


def test_another_engine_than_the_rows_give_is_not_recommended() -> None:
    told = advised()
    first, *others = told.losers
    swapped = dataclasses.replace(
        told, winner=first.label, losers=(dataclasses.replace(first, label=told.winner), *others)
    )
    worded = dataclasses.replace(told, losers=(dataclasses.replace(first, why="9 times as slow"), *others))

    for edited, field in ((swapped, "winner"), (worded, r"losers\[0\]")):
        with pytest.raises(InputError, match=rf"recommendation\.{field}: expected .*, as the rows give, found "):
            verify_recommendation(reported(recommendation=edited), "report.json")
        verify_recommendation(page_report(version="0.0.1", recommendation=edited), "another version judges otherwise")


def test_rows_that_the_recommendation_names_must_be_there() -> None:
    whole = reported()

    with pytest.raises(InputError, match="expected each engine of rows once"):
        verify_recommendation(dataclasses.replace(whole, rows=whole.rows[:-1]), "report.json")


def test_the_percentile_of_the_latency_budget_is_the_one_of_the_recipe() -> None:
    rows, budgets = reported().rows, Budgets(latency_ms=1.4)
    made = "source: {checkpoint: 'bundled:densenet_bc40_fmnist'}\nbench: {percentiles: [50]}\n"
    found = reported(recommendation=recommend(rows, budgets, (50,)), recipe_yaml=made)

    verify_recommendation(found, "report.json")
