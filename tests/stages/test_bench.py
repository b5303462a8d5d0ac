"""Benchmarks: every sample is kept where it belongs, and no engine gets a number that it did not earn."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench_records import COST, HERE, PART, WARM, measurement, pair, timing, turn
from gauged import Gauges
from stand_ins import PretendLink

from deploy_kit.base.errors import EngineCrashError, MeasurementError
from deploy_kit.context import Context
from deploy_kit.measure import race
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Bench, LoadCost, NotRun
from deploy_kit.stages import bench
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

NO_GPU = "no NVIDIA GPU on this machine"


@pytest.fixture(scope="module")
def measured(line: "Line") -> Bench:
    """Two real engines measured in turns."""
    return bench.run(pair(line), PART, Context(store=line.store, connection=line.connection))[0]


def test_each_engine_has_rounds_times_runs_samples(measured: Bench) -> None:
    assert [len(found.samples_ms) for found in measured.measurements] == [4 * 5, 4 * 5]


def test_each_round_begins_where_the_one_before_ended(measured: Bench) -> None:
    assert {found.rounds for found in measured.measurements} == {(0, 5, 10, 15)}


def test_by_round_gives_every_sample_once(measured: Bench) -> None:
    for found in measured.measurements:
        assert tuple(itertools.chain(*found.by_round)) == found.samples_ms


def test_every_sample_is_a_time(measured: Bench) -> None:
    assert all(sample > 0 for found in measured.measurements for sample in found.samples_ms)


def test_engines_come_back_in_the_order_they_were_given(measured: Bench) -> None:
    assert [found.label for found in measured.measurements] == ["fp32 · onnxruntime", "int8 · onnxruntime"]


def test_a_number_comes_with_its_machine_and_settings(measured: Bench) -> None:
    found = measured.measurements[0]

    assert (found.environment.cpu, found.environment.versions) == (HERE.cpu, HERE.versions)
    assert dict(found.settings)["provider"] == "CPUExecutionProvider"


def test_samples_stay_with_the_engine_that_took_them(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path)

    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=connection))

    taken = Counter(itertools.chain(*(m.samples_ms for m in found.measurements)))
    assert taken == Counter(float(n) for n in range(1, 2 * 4 * 5 + 1))


def test_every_engine_takes_one_turn_in_each_round(line: "Line", kept: Store, tmp_path: Path) -> None:
    # The clock counts on, so that a sample says when it was taken: round n holds 10n + 1 … 10n + 10.
    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    for m in found.measurements:
        assert [int((turn[0] - 1) // 10) for turn in m.by_round] == [0, 1, 2, 3]


def test_the_order_of_turns_is_drawn_anew_each_round(line: "Line", kept: Store, tmp_path: Path) -> None:
    part = BenchTable(rounds=20, runs=1, warmup_s=0.05)

    found, _ = bench.run(pair(line), part, Context(store=kept, connection=timing(tmp_path)))

    # Engine 0 has the odd sample of a round where it came first.
    first = [turn[0] % 2 == 1 for turn in found.measurements[0].by_round]
    assert 0 < sum(first) < 20


def test_the_order_of_turns_is_that_of_the_seed(line: "Line", kept: Store, tmp_path: Path) -> None:
    part = BenchTable(rounds=20, runs=1, warmup_s=0.05)

    first, _ = bench.run(pair(line), part, Context(store=kept, connection=timing(tmp_path)))
    second, _ = bench.run(pair(line), part, Context(store=kept, connection=timing(tmp_path)), fresh=True)

    assert [m.samples_ms for m in first.measurements] == [m.samples_ms for m in second.measurements]


def test_the_batch_of_a_static_engine_is_fed_whole(line: "Line", kept: Store, tmp_path: Path) -> None:
    shapes = []

    def warm_up(arguments: dict[str, Any]) -> dict[str, Any]:
        shapes.append(np.load(arguments["inputs"]).shape)
        return WARM

    connection = timing(tmp_path, open={"batch": 5, "settings": {}}, warm_up=warm_up)
    found, _ = bench.run(pair(line)[:1], PART, Context(store=kept, connection=connection))

    assert (shapes, found.measurements[0].batch) == ([(5, 1, 16, 16)], 5)


def test_a_warm_up_that_never_became_steady_is_recorded(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path, warm_up=WARM | {"runs": 20, "steady": False})

    found, _ = bench.run(pair(line)[:1], PART, Context(store=kept, connection=connection))

    assert (found.measurements[0].warmup_runs, found.measurements[0].steady) == (20, False)


@pytest.mark.slow
def test_what_loading_cost_is_kept_with_the_engine(line: "Line", kept: Store, tmp_path: Path) -> None:
    found, _ = bench.run(pair(line)[:1], PART, Context(store=kept, connection=timing(tmp_path)))

    assert found.measurements[0].cost == LoadCost(**COST)


def test_a_real_engine_costs_time_and_memory(measured: Bench) -> None:
    for found in measured.measurements:
        assert found.cost is not None
        assert min(found.cost.load_ms, found.cost.first_ms) > 0
        assert 0 < found.cost.memory_before_mib < found.cost.peak_memory_mib


def test_a_profile_is_taken_after_all_turns_in_a_worker_of_its_own(line: "Line", kept: Store, tmp_path: Path) -> None:
    layers = [{"name": "relu", "op": "Relu", "origins": [], "samples_ms": [1.0, 2.0]}]
    trace = {"source": "a test", "runs_ms": [3.0, 4.0], "layers": layers}
    connection = timing(tmp_path, profile={"trace": trace})
    part = PART.model_copy(update={"profile": True})

    found, _ = bench.run(pair(line), part, Context(store=kept, connection=connection))

    assert [m.profile.total_ms for m in found.measurements if m.profile] == [1.5, 1.5]
    asked = [[op for op, _ in worker.asked] for worker in connection.workers]
    assert asked[3:] == [["profile"], ["profile"]]  # behind the gauges' worker and the racers' two
    assert not any("profile" in ops for ops in asked[:3])


def test_without_being_asked_nothing_is_profiled(measured: Bench) -> None:
    assert [found.profile for found in measured.measurements] == [None, None]


@pytest.mark.parametrize("samples_ms", [[1.0, 0.0], [1.0, -0.5], []])
def test_a_time_that_cannot_be_is_no_measurement(
    line: "Line", kept: Store, tmp_path: Path, samples_ms: list[float]
) -> None:
    with pytest.raises(MeasurementError, match="fp32 · onnxruntime: a run took") as caught:
        bench.run(pair(line)[:1], PART, Context(store=kept, connection=timing(tmp_path, samples_ms)))

    assert caught.value.exit_code == 6


def test_a_failed_measurement_is_not_kept(line: "Line", kept: Store, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError):
        bench.run(pair(line)[:1], PART, Context(store=kept, connection=timing(tmp_path, [])))

    assert kept.all(Bench, "bench") == []


def test_an_engine_that_cannot_run_here_gets_no_number(line: "Line", kept: Store, tmp_path: Path) -> None:
    float_engine, other = pair(line)
    gpu = Artifact(**vars(other) | {"engine": "tensorrt_rtx"})
    connection = timing(
        tmp_path, why_unavailable=lambda asked: {"why": NO_GPU if asked["engine"] == "tensorrt_rtx" else ""}
    )

    found, _ = bench.run((float_engine, gpu), PART, Context(store=kept, connection=connection))

    assert [m.label for m in found.measurements] == ["fp32 · onnxruntime"]
    assert found.not_run == (NotRun(artifact=gpu.sha256, label="int8 · tensorrt_rtx", why=NO_GPU),)


def test_where_nothing_can_run_nothing_is_measured(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path, why_unavailable={"why": NO_GPU})

    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=connection))

    assert (found.measurements, len(found.not_run)) == ((), 2)


def test_every_worker_is_closed_at_the_end(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = timing(tmp_path)

    bench.run(pair(line), PART, Context(store=kept, connection=connection))

    assert [worker.closed for worker in connection.workers] == [True] * 3


def dying(folder: Path, label: str) -> PretendLink:
    """Give a link on which one engine dies in its second turn."""
    turns = Counter[str]()

    def time(arguments: dict[str, Any]) -> dict[str, Any]:
        turns[arguments["about"]] += 1
        if label in arguments["about"] and turns[arguments["about"]] == 2:
            raise EngineCrashError(f"{label}: the worker process died in 'time' with SIGSEGV")
        return turn([1.0] * arguments["n"])

    return timing(folder, time=time)


def test_an_engine_that_dies_leaves_the_others_their_numbers(line: "Line", kept: Store, tmp_path: Path) -> None:
    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=dying(tmp_path, "int8")))

    assert [(m.label, len(m.samples_ms)) for m in found.measurements] == [("fp32 · onnxruntime", 20)]


def test_an_engine_that_dies_has_its_reason_and_no_number(line: "Line", kept: Store, tmp_path: Path) -> None:
    found, _ = bench.run(pair(line), PART, Context(store=kept, connection=dying(tmp_path, "int8")))

    assert [(entry.label, "SIGSEGV" in entry.why) for entry in found.failed] == [("int8 · onnxruntime", True)]


def test_a_bench_in_which_an_engine_died_is_not_kept(line: "Line", kept: Store, tmp_path: Path) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=dying(tmp_path, "int8")))

    assert kept.all(Bench, "bench") == []
    assert list(kept.root.glob(".new-*")) == []


def test_every_worker_is_closed_after_a_crash(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = dying(tmp_path, "int8")

    bench.run(pair(line), PART, Context(store=kept, connection=connection))

    assert [worker.closed for worker in connection.workers] == [True] * 3


def test_an_engine_file_that_changed_is_not_measured(line: "Line", kept: Store, tmp_path: Path) -> None:
    engine = line.built("int8", "onnxruntime")
    with (kept.root / engine.path).open("ab") as file:
        file.write(b"more")

    found, _ = bench.run((engine,), PART, Context(store=kept, connection=timing(tmp_path)))

    assert found.measurements == ()
    assert "changed since it was made" in found.failed[0].why


def test_a_second_run_is_taken_from_the_store(line: "Line", kept: Store, tmp_path: Path) -> None:
    first, _ = bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    second, reused = bench.run(pair(line), PART, Context(store=kept, connection=PretendLink(tmp_path, {})))

    assert (second, reused) == (first, True)


def test_fresh_measures_again(line: "Line", kept: Store, tmp_path: Path) -> None:
    engines = pair(line)[:1]
    bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [1.0])))

    found, reused = bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [2.0])), fresh=True)

    assert (set(found.measurements[0].samples_ms), reused) == ({2.0}, False)


def test_fresh_measures_again_within_the_same_second(
    line: "Line", kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "_now", lambda: "2026-01-01T00:00:00+00:00")
    engines = pair(line)[:1]
    bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [1.0])), fresh=True)

    found, reused = bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [2.0])), fresh=True)

    assert (set(found.measurements[0].samples_ms), reused) == ({2.0}, False)


def test_what_was_measured_last_is_what_the_store_gives(line: "Line", kept: Store, tmp_path: Path) -> None:
    engines = pair(line)[:1]
    bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [1.0])))
    bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [2.0])), fresh=True)

    found, _ = bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [3.0])))

    assert set(found.measurements[0].samples_ms) == {2.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fact",
    [
        {"cpu_limit": 0.4}, {"governor": "powersave"}, {"power_mode": "15W"}, {"gpu": "H200, driver 570"},
        {"host": "Linux 7.0 x86_64"}, {"isa": ("none of today",)}, {"board": "Orin"}, {"memory_limit_gib": 1.0},
    ],
    ids=lambda fact: next(iter(fact)),
)  # fmt: skip
def test_a_machine_in_another_state_is_measured_anew(
    line: "Line", kept: Store, tmp_path: Path, fact: dict[str, Any]
) -> None:
    here, there = timing(tmp_path, [1.0]), timing(tmp_path, [2.0])
    there.environment = replace(there.environment, **fact)
    bench.run(pair(line)[:1], PART, Context(store=kept, connection=here))

    found, reused = bench.run(pair(line)[:1], PART, Context(store=kept, connection=there))

    assert (set(found.measurements[0].samples_ms), reused) == ({2.0}, False)


def test_a_moment_is_no_state(line: "Line", kept: Store, tmp_path: Path) -> None:
    later = timing(tmp_path)
    later.environment = replace(later.environment, load=9.0, clock_mhz=1.0, free_memory_gib=0.5)
    bench.run(pair(line)[:1], PART, Context(store=kept, connection=timing(tmp_path)))

    assert bench.run(pair(line)[:1], PART, Context(store=kept, connection=later))[1] is True


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [{"rounds": 5}, {"runs": 6}, {"warmup_s": 1.0}, {"span": "whole"}, {"seed": 1}],
    ids=lambda o: next(iter(o)),
)
def test_another_way_to_measure_is_another_measurement(
    line: "Line", kept: Store, tmp_path: Path, other: dict[str, Any]
) -> None:
    bench.run(pair(line), PART, Context(store=kept, connection=timing(tmp_path)))

    part = BenchTable(**PART.model_dump() | other)
    _, reused = bench.run(pair(line), part, Context(store=kept, connection=timing(tmp_path)))

    assert not reused


def test_speed_up_is_as_worked_by_hand() -> None:
    # Medians by round: 10, 20, 30, 10, 10, 10 against half of each.
    slow = measurement("slow", [9, 10, 11], [20, 20, 50], [1, 30, 31], [10], [10], [10])
    fast = measurement("fast", [5, 5, 5], [9, 10, 99], [15, 15, 15], [5], [5], [5])

    found = speed_up(slow, fast)

    assert (found.ratio, found.low, found.high, found.baseline, found.interleaved) == (2, 2, 2, "slow", True)


def test_fewer_than_six_rounds_carry_no_verdict() -> None:
    found = speed_up(measurement("slow", *[[10.0]] * 5), measurement("fast", *[[5.0]] * 5))

    assert (found.ratio, found.noise, found.verdict) == (2, True, "2.00×, too few rounds for a verdict")


def test_a_single_round_is_compared_by_its_samples_and_not_called_interleaved() -> None:
    found = speed_up(measurement("slow", [10.0] * 50), measurement("fast", [5.0] * 50))

    assert (found.ratio, found.low, found.high, found.interleaved) == (2, 2, 2, False)


@pytest.mark.parametrize(("n", "given"), [(999, False), (1000, True)])
def test_p99_is_given_from_a_thousand_samples_on(n: int, given: bool) -> None:
    assert (measurement("one", [float(i) for i in range(n)]).percentile_ms(99) is not None) is given


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_percentiles_are_those_of_numpy(percent: int) -> None:
    samples = np.random.default_rng(0).gamma(2, 3, 1000)

    found = measurement("one", samples.tolist()).percentile_ms(percent)

    assert found == pytest.approx(np.percentile(samples, percent))


@pytest.mark.usefixtures("alone")
def test_what_is_not_valid_is_kept_and_measured_again(line: "Line", kept: Store, tmp_path: Path) -> None:
    engines = pair(line)[:1]
    busy = timing(tmp_path, [1.0] * 5, **Gauges(foreign=10.0).answers())
    invalid, _ = bench.run(engines, PART, Context(store=kept, connection=busy))

    found, reused = bench.run(engines, PART, Context(store=kept, connection=timing(tmp_path, [2.0] * 5)))

    assert [m.invalid[0].partition(" took")[0] for m in invalid.measurements] == ["foreign load"]
    assert set(invalid.measurements[0].samples_ms) == {1.0}
    assert (found.invalid, reused) == ((), False)
    assert len(kept.all(Bench, "bench")) >= 1


def test_energy_is_another_way_to_measure(line: "Line", kept: Store, tmp_path: Path) -> None:
    part = BenchTable(**PART.model_dump() | {"energy": True})
    slept = list[float]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", slept.append)
        # idle at 5 W; then whatever is read at 12 W
        connection = timing(tmp_path, **Gauges(watts=(5, 5, 12)).answers())
        found, _ = bench.run(pair(line)[:1], part, Context(store=kept, connection=connection))

    energy = found.measurements[0].energy
    assert slept[:1] == [10.5]
    assert energy is not None
    assert [(rail.name, rail.idle_w, rail.joules) for rail in energy.rails] == [("VDD_IN", 5.0, 132.0)]
