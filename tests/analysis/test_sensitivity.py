"""Trials: the numbers are those of the graph that quantize writes, and layer times stand with their groups."""

import numpy as np
import pytest
from planted_faults import FAULTY, GROUPS, N, Planted, logits_of, pictures, planted, planted_once
from stage_inputs import images_of

from deploy_kit.accuracy import metrics
from deploy_kit.context import Context
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Variant
from deploy_kit.records.mixed_precision import GroupTime, GroupTimes
from deploy_kit.stages import quantize

pytestmark = pytest.mark.slow

__all__ = ["planted", "planted_once"]  # fixtures


def test_a_trial_is_of_the_graph_that_quantize_writes(planted: Planted) -> None:
    variant = Variant(name="int8", scheme="int8_portable", options={"keep": [FAULTY, "stem"]})
    graph, _ = quantize.run(
        planted.lean,
        variant,
        Context(store=planted.store, connection=planted.connection),
        calibration=images_of(planted.calibration),
    )
    found = logits_of(planted.store.path(graph), pictures(N, 1))
    with np.load(planted.store.root / planted.answers.path) as data:
        wanted, labels = data["logits"], data["labels"]

    with planted.trials() as trials:
        trial = trials.trial((FAULTY, "stem"))

    assert trial.kept == ("stem", FAULTY)
    assert trial.n == N
    assert trial.sqnr_db == pytest.approx(metrics.sqnr_db(wanted, found))
    assert trial.lost - trial.gained == (wanted.argmax(1) == labels).sum() - (found.argmax(1) == labels).sum()


def test_the_order_in_which_groups_are_named_makes_no_other_trial(planted: Planted) -> None:
    with planted.trials() as trials:
        first = trials.trial(("head", "stem"), n=20)
        again = trials.trial(("stem", "head"), n=20)

    assert (again, trials.made) == (first, 1)


def test_one_calibration_serves_all_trials(planted: Planted) -> None:
    with planted.trials() as trials:
        for group in GROUPS[:3]:
            trials.trial((group,), n=5)

    asked = [op for worker in planted.connection.workers for op, _ in worker.asked]
    assert (asked.count("plan"), asked.count("mix"), asked.count("quantize")) == (1, 3, 0)


def test_groups_are_known_with_their_work(planted: Planted) -> None:
    with planted.trials() as trials:
        groups = trials.groups()

    assert [group.name for group in groups] == list(GROUPS)
    assert groups[0].macs == 16 * 16 * 8 * 9
    assert groups[-1].macs == 16 * 4


def test_layer_times_stand_with_their_groups(planted: Planted) -> None:
    with planted.trials(engine="onnxruntime") as trials:
        times = trials.times()

    assert {group.name for group in times.groups} == set(GROUPS)
    assert all(group.float_ms > 0 and group.int8_ms > 0 for group in times.groups)
    known, rest = sum(group.int8_ms for group in times.groups), times.rest.int8_ms
    assert times.total_ms(()) == pytest.approx(known + rest)
    assert rest < 0.2 * known


def test_an_engine_that_does_not_time_its_layers_says_what_stands_in(planted: Planted) -> None:
    with planted.trials(engine="reference") as trials:
        times = trials.times()

    assert times.why == "engine 'reference' does not time its layers: multiply-accumulates stand in for ms"
    assert (times.total_ms(()), times.saved_ms("stem")) == (None, None)


@pytest.mark.parametrize(("engine", "computes"), [("openvino", "openvino"), ("tensorrt_rtx", "onnxruntime")])
def test_engines_that_take_minutes_to_build_are_stood_in_for(planted: Planted, engine: str, computes: str) -> None:
    assert planted.trials(engine=engine).subject.evaluated_in == computes


def test_a_region_asked_for_is_all_its_groups(planted: Planted) -> None:
    with planted.trials(keep=["denseblock1"]) as trials:
        assert trials.always == GROUPS[1:3]


def test_a_mix_is_estimated_group_by_group() -> None:
    times = GroupTimes(
        source="a profiler",
        groups=(GroupTime(name="stem", float_ms=4, int8_ms=1), GroupTime(name="head", float_ms=3, int8_ms=2)),
        rest=GroupTime(name="unknown", float_ms=0.5, int8_ms=0.25),
    )

    assert times.total_ms(()) == 3.25
    assert times.total_ms(("stem",)) == pytest.approx(4 + 2 + 0.25 + 0.25 * 4 / 7)
    assert times.total_ms(("stem", "head")) == 7.5
    assert times.saved_ms("stem") == 3


def test_other_defaults_of_a_scheme_are_another_trial(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted.trials() as first:
        first.trial((), n=5)
    with planted.trials(rounding="auto", method="auto") as same:  # the defaults, said
        same.trial((), n=5)
    monkeypatch.setattr(schemes, "VERSION", "of another day")
    with planted.trials() as other:
        other.trial((), n=5)

    assert (first.made, same.made, other.made) == (1, 0, 1)


def test_layer_times_are_of_the_mix_that_was_asked_for(planted: Planted) -> None:
    with planted.trials(engine="onnxruntime", keep=["stem"]) as first:
        first.times()
    with planted.trials(engine="onnxruntime", keep=["head"]) as second:
        second.times()

    profiled = [arguments for worker in planted.connection.workers for op, arguments in worker.asked if op == "profile"]
    assert len(profiled) == 4
