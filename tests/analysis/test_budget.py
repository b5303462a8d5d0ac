"""The mix that keeps a budget: found where a fault was planted, the same each time, and never tried twice."""

import pytest
from planted_faults import FAULTY, GROUPS, Planted, planted, planted_once
from stage_inputs import images_of
from tiny_densenet import save_images

from deploy_kit.accuracy import paired
from deploy_kit.analysis import budget
from deploy_kit.analysis.budget import AccuracyBudget, MeasuredDrop, TrialClock
from deploy_kit.base.errors import InputError, StageError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.records.mixed_precision import Decision, Trial

pytestmark = pytest.mark.slow

__all__ = ["planted", "planted_once"]  # fixtures
POINTS = 3.0  # the planted fault costs 32 points, INT8 without it 1


def needing(*culprits: str):  # type: ignore[no-untyped-def]
    """Give a budget that holds exactly where the culprits are in float, and what it was asked."""
    asked: list[tuple[str, ...]] = []

    def holds(kept: tuple[str, ...]) -> bool:
        asked.append(kept)
        return set(culprits) <= set(kept)

    return holds, asked


def by_name(name: str) -> float:
    return float(ord(name))


@pytest.mark.parametrize("culprits", ["a", "c", "h", "af", "ch", "abcdefgh", "bdeg"])
def test_a_search_keeps_the_culprits_and_nothing_else(culprits: str) -> None:
    holds, _ = needing(*culprits)

    assert budget.search("abcdefgh", holds, by_name) == tuple(culprits)


def test_a_search_for_one_culprit_takes_few_trials() -> None:
    ranked = [chr(number) for number in range(200, 264)]
    holds, asked = needing(ranked[0])

    assert budget.search(ranked, holds, by_name) == (ranked[0],)
    assert asked == [(ranked[0],)]


def test_what_no_choice_helps_is_told_apart() -> None:
    holds, _ = needing("z")

    assert budget.search("abc", holds, by_name) is None


def test_dear_groups_are_given_back_first() -> None:
    holds, asked = needing("d")

    budget.search("abcd", holds, {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0}.__getitem__)

    assert asked[-3:] == [("a", "c", "d"), ("a", "d"), ("d",)]


def test_without_time_a_search_stops_at_what_holds() -> None:
    holds, _ = needing("c")

    assert budget.search("abcdefgh", holds, by_name, lambda: False) == tuple("abcd")


def test_a_planted_fault_is_kept_in_float_and_nothing_else(planted: Planted) -> None:
    with planted.trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert mix.found
    assert mix.kept == (FAULTY,)
    assert mix.int8_drop_pp > 2 * POINTS
    assert mix.upper_pp <= POINTS
    assert [row.group for row in mix.decisions] == list(GROUPS)
    chosen = next(row for row in mix.decisions if row.group == FAULTY)
    assert (chosen.precision, chosen.why) == ("fp32", "the budget does not hold with it in int8")
    assert chosen.sqnr_db == min(row.sqnr_db or 0 for row in mix.decisions)
    assert mix.trials == 1 + len(GROUPS) + 1


def test_a_second_search_makes_nothing_and_finds_the_same(planted: Planted) -> None:
    with planted.trials() as first:
        mix = budget.find_mix(first, AccuracyBudget(max_drop_pp=POINTS))
    with planted.trials() as second:
        again = budget.find_mix(second, AccuracyBudget(max_drop_pp=POINTS))

    assert again == mix
    assert (first.made, second.made) == (mix.trials, 0)


def test_a_search_that_was_interrupted_makes_only_what_is_missing(planted: Planted) -> None:
    def interrupting(event: ProgressEvent) -> None:
        if event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), planted.trials(interrupting) as first:
        budget.find_mix(first, AccuracyBudget(max_drop_pp=POINTS))
    with planted.trials() as second:
        mix = budget.find_mix(second, AccuracyBudget(max_drop_pp=POINTS))

    assert first.made == 1 + 3
    assert second.made == mix.trials - first.made
    assert mix.kept == (FAULTY,)


def test_one_trial_is_enough_where_everything_may_be_int8(planted: Planted) -> None:
    with planted.trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=50.0))

    assert (mix.found, mix.kept, mix.trials, trials.made) == (True, (), 1, 1)
    assert {row.why for row in mix.decisions} == {"the budget holds with it in int8"}


def test_what_was_asked_for_stays_in_float_and_is_not_tried(planted: Planted) -> None:
    with planted.trials(keep=[FAULTY]) as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS, sensitivity=True))

    assert mix.kept == (FAULTY,)
    assert trials.made == 1 + len(GROUPS) - 1
    assert [row.why for row in mix.decisions if row.group == FAULTY] == ["asked for"]


def test_a_budget_that_no_mix_keeps_is_told_in_words(planted: Planted) -> None:
    with planted.answered(wrong=30).trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert not mix.found
    assert mix.remark == (
        "with every group in float the drop is +10.00 points, at most +13.92 (95 %), on 300 images: "
        "more images alone would not help"
    )


def test_too_few_images_are_told_with_how_many_would_do(planted: Planted) -> None:
    with planted.answered(wrong=2, n=150).trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert not mix.found
    assert mix.remark.endswith("at most +4.73 (95 %), on 150 images: about 669 images would show it")


def test_images_too_few_for_int8_are_told_before_the_search_and_with_its_result(planted: Planted) -> None:
    told = list[str]()
    with planted.answered(n=100).trials(lambda event: told.append(event.text)) as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=36.0))

    assert mix.remark == (
        "everything in int8 drops +32.00 points on these 100 images, too few to show that it keeps the budget: "
        "about 1,112 would"
    )
    assert told.index(mix.remark) < told.index("each group alone in int8")


def test_images_without_labels_are_judged_by_agreement(planted: Planted) -> None:
    with planted.answered(labelled=False).trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert (mix.judged_by, mix.kept) == ("agreement", (FAULTY,))


def test_a_time_limit_ends_a_search_with_what_to_do(planted: Planted) -> None:
    with planted.trials() as trials, pytest.raises(StageError) as caught:
        budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS, time_limit_s=1e-9))

    assert str(caught.value) == "quantize: the time limit of 1e-09 s came before everything in int8"
    assert "goes on from there" in caught.value.hint


def test_a_time_limit_ends_a_measurement_of_sensitivity_too(planted: Planted) -> None:
    with planted.trials() as trials, pytest.raises(StageError, match="the time limit of 1e-09 s"):
        budget.measured(trials, 1e-9)


def test_sensitivity_alone_decides_nothing(planted: Planted) -> None:
    with planted.trials(keep=["stem"]) as trials:
        mix = budget.measured(trials)

    assert mix.max_drop_pp is None
    assert [(row.precision, row.why) for row in mix.decisions] == [("fp32", budget.ASKED), *[("int8", "")] * 6]


def test_a_clock_without_a_limit_never_ends() -> None:
    TrialClock(None).require("anything")

    assert TrialClock(None).more()


def test_only_float_keeping_the_budget_is_no_mix(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(trial: Trial) -> MeasuredDrop:
        return MeasuredDrop(pp=0.0, upper_pp=0.0 if len(trial.kept) == len(GROUPS) else 9.0)

    monkeypatch.setattr(budget, "drop_of", strict)
    with planted.trials() as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert (mix.found, mix.remark) == (False, "it holds with every group in float alone: build the float graph")


def test_a_search_without_time_to_leave_less_in_float_is_no_answer(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = list[bool]()

    def strict(trial: Trial) -> MeasuredDrop:
        if len(trial.kept) == len(GROUPS):
            ended.append(True)
            return MeasuredDrop(pp=0.0, upper_pp=0.0)
        return MeasuredDrop(pp=0.0, upper_pp=9.0)

    monkeypatch.setattr(budget, "drop_of", strict)
    monkeypatch.setattr(TrialClock, "more", lambda self: not ended)
    with (
        planted.trials() as trials,
        pytest.raises(StageError, match="came before a mix with fewer groups in float"),
    ):
        budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS, time_limit_s=60.0))


def test_a_part_of_a_layer_that_was_asked_for_is_in_the_table(planted: Planted) -> None:
    part = f"{FAULTY}.conv1"

    with planted.trials(keep=[part]) as trials:
        mix = budget.find_mix(trials, AccuracyBudget(max_drop_pp=50.0))

    assert mix.kept == (part,)
    (row,) = [row for row in mix.decisions if row.group == FAULTY]
    assert (row.precision, row.why) == ("int8", "the budget holds with it in int8; .conv1 in float: asked for")


def trial(n: int, lost: int, gained: int) -> Trial:
    return Trial(kept=(), n=n, sqnr_db=1, kl=0, agreement=1, lost=lost, gained=gained, labelled=True)


def test_the_drop_of_a_trial_is_the_paired_one_of_its_images() -> None:
    found = budget.drop_of(trial(1000, 30, 20))

    assert (found.pp, found.upper_pp) == pytest.approx((1.0, 100 * paired.drop_interval(30, 20, 1000)[1]))


def test_the_images_needed_are_those_of_the_paired_test() -> None:
    assert budget.n_needed(trial(1000, 5, 5), 0.5) == paired.images_needed(5, 5, 1000, 0.005)
    assert budget.n_needed(trial(1000, 6, 3), 0.3) is None


def test_images_that_could_not_show_the_budget_are_refused_before_any_trial(planted: Planted) -> None:
    with planted.answered(n=100).trials() as trials, pytest.raises(InputError) as caught:
        budget.find_mix(trials, AccuracyBudget(max_drop_pp=POINTS))

    assert str(caught.value) == "100 images cannot show a drop of at most 3 points, even if no answer changed"
    assert caught.value.hint.startswith("give 125 or more")
    assert trials.made == 0


def test_a_budget_of_nothing_is_refused(planted: Planted) -> None:
    with planted.trials() as trials, pytest.raises(InputError, match="cannot be shown by any number of images"):
        budget.find_mix(trials, AccuracyBudget(max_drop_pp=0.0))


def row(name: str, sqnr_db: float, saved_ms: float | None, macs: int = 1) -> Decision:
    return Decision(group=name, precision="int8", sqnr_db=sqnr_db, kl=0.0, saved_ms=saved_ms, macs=macs, why="")


def test_noise_for_each_millisecond_decides_the_order() -> None:
    rows = [row("loud, saves much", 20, 10.0), row("loud, saves little", 20, 1.0), row("still", 60, 1.0)]

    assert budget.worst_first(rows) == ["loud, saves little", "loud, saves much", "still"]


def test_a_group_that_int8_does_not_speed_up_does_not_go_first_for_that_alone() -> None:
    rows = [row("saves nothing", 60, -0.1), row("loud", 20, 1.0), row("not a number", float("nan"), 1.0)]

    assert budget.worst_first(rows) == ["not a number", "loud", "saves nothing"]


def test_multiply_accumulates_stand_in_where_one_time_is_not_known() -> None:
    rows = [row("timed", 20, 1.0, macs=100), row("not timed", 20, None, macs=10)]

    assert budget.worst_first(rows) == ["not timed", "timed"]


def test_images_that_the_check_judges_by_are_refused(planted: Planted, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tune, check = save_images(tmp_path / "tune.npz", 8), save_images(tmp_path / "check.npz", 4)

    with pytest.raises(InputError, match="4 images are both in the tuning set") as caught:
        budget.refuse_overlap(images_of(tune), images_of(check), planted.lean)

    assert caught.value.hint == "tune on images that the check does not judge by"
    budget.refuse_overlap(images_of(tune), images_of(save_images(tmp_path / "other.npz", 4, seed=5)), planted.lean)
    budget.refuse_overlap(images_of(tune), images_of("synthetic"), planted.lean)


def test_noise_is_refused_as_tuning_images(planted: Planted) -> None:
    with pytest.raises(InputError, match="noise says nothing about accuracy"):
        budget.refuse_overlap(images_of("synthetic"), images_of("synthetic"), planted.lean)
