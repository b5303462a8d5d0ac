"""The fastest mix of INT8 and float that keeps an accuracy budget, as far as a greedy search finds it.

    1. everything in INT8: where the upper end of the drop's interval keeps the budget, that is the mix
    2. each group alone in INT8 (`sensitivity`): noise for each millisecond that INT8 saves in it, the worst first
    3. the first 1, 2, 4, … of them in float until the budget holds, then bisection between the last two
    4. each of those, except the one that decided, back to INT8 where the budget holds without it

At most 1 + groups + 2·log₂(groups) + kept trials. Nothing proves that no faster mix exists: noises are taken to add
up, and one order is tried.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deploy_kit.accuracy import jackknife, paired, tasks
from deploy_kit.analysis.sensitivity import N_IMAGES, TrialRunner
from deploy_kit.base.errors import InputError, StageError
from deploy_kit.images import ImageSource
from deploy_kit.records.artifacts import Artifact, BareInput
from deploy_kit.records.mixed_precision import Decision, GroupSize, GroupTimes, Mix, Trial

ASKED = "asked for"
"""Why a group is in float that was not the search's to choose."""

_HOLDS, _BREAKS = "the budget holds with it in int8", "the budget does not hold with it in int8"


@dataclass(frozen=True, kw_only=True)
class MeasuredDrop:
    """Lost accuracy in percentage points, and the upper end of its 95 % interval."""

    pp: float
    upper_pp: float


@dataclass(frozen=True, kw_only=True)
class AccuracyBudget:
    """What must be kept.

    Attributes:
        max_drop_pp: Percentage points that the upper end of the drop's interval may reach.
        time_limit_s: No trial begins after it; None for no limit.
        sensitivity: Measure each group alone even where the budget holds with everything in INT8.
    """

    max_drop_pp: float
    time_limit_s: float | None = None
    sensitivity: bool = False


def drop_of(trial: Trial) -> MeasuredDrop:
    """Return the drop of a trial with the upper end of its interval (`paired.interval`, or the task's own)."""
    if trial.drop is not None:
        return MeasuredDrop(pp=trial.drop.points, upper_pp=trial.drop.high)
    _, high = paired.drop_interval(trial.lost, trial.gained, trial.n)
    return MeasuredDrop(pp=100 * (trial.lost - trial.gained) / trial.n, upper_pp=100 * high)


def n_needed(trial: Trial, max_drop_pp: float) -> int | None:
    """Return how many images would show a drop like this to be within the budget; None where no number would."""
    if trial.drop is not None:
        return jackknife.images_needed(trial.drop, trial.n, max_drop_pp)
    return paired.images_needed(trial.lost, trial.gained, trial.n, max_drop_pp / 100)


def refuse_overlap(tune: ImageSource, check: ImageSource, graph: Artifact) -> None:
    """Refuse tuning images that the check judges by.

    Raises:
        InputError: They share at least one image, by sha256, or the tuning images are noise.
    """
    if tune.is_noise or isinstance(graph.preprocess, BareInput):
        raise InputError(
            "an accuracy budget needs real images to tune with, and noise says nothing about accuracy",
            hint="give some: --tune FOLDER (or an npz file)",
        )
    if check.is_noise:
        return
    shared = tune.open(graph.preprocess).overlap(check.open(graph.preprocess))
    if shared:
        raise InputError(
            f"{shared} images are both in the tuning set '{tune.name}' and in the check set '{check.name}'",
            hint="tune on images that the check does not judge by",
        )


def refuse_few(tune: ImageSource, graph: Artifact, task: str | None, max_drop_pp: float) -> None:
    """Refuse so few tuning images before anything computes, where the graph gives a row of classes an image.

    Args:
        tune: The tuning images.
        graph: The graph.
        task: What the user says that its output means.
        max_drop_pp: The budget in percentage points.

    Raises:
        InputError: They could not show that the budget is kept, even if no answer changed.
    """
    assert not isinstance(graph.preprocess, BareInput)  # `refuse_overlap`
    images = tune.open(graph.preprocess)
    sides = graph.outputs[0].shape[1:]
    shape = tuple(side for side in sides if isinstance(side, int))
    if len(shape) < len(sides):
        return
    means, _ = tasks.choose_task(task, shape, multilabel=images.multilabel)
    if tasks.CATALOGUE.get(means).scoring is None:
        require_enough(images.n, max_drop_pp)


def search(
    ranked: Sequence[str],
    holds: Callable[[tuple[str, ...]], bool],
    dearest: Callable[[str], float],
    more: Callable[[], bool] = lambda: True,
) -> tuple[str, ...] | None:
    """Find few groups that must stay in float, where the budget does not hold with none.

    Args:
        ranked: Groups, those first that should stay in float first.
        holds: Whether the budget holds with these groups in float.
        dearest: What a group in float costs; those that cost most are given back first.
        more: Whether there is time to improve on a mix that holds.

    Returns:
        The groups; None where the budget does not hold with all of them in float.
    """
    low, high = 0, min(1, len(ranked))
    while not holds(tuple(ranked[:high])):
        if high == len(ranked):
            return None
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1 and more():
        middle = (low + high) // 2
        low, high = (low, middle) if holds(tuple(ranked[:middle])) else (middle, high)
    kept = list(ranked[:high])
    for name in sorted(kept[:-1], key=dearest, reverse=True):
        if not more():
            break
        fewer = [other for other in kept if other != name]
        if holds(tuple(fewer)):
            kept = fewer
    return tuple(kept)


def find_mix(trials: TrialRunner, budget: AccuracyBudget) -> Mix:
    """Find the mix; `Mix.found` says whether there is one.

    Raises:
        InputError: So few images could not show that the budget holds, whatever the answers.
        StageError: The time limit came before anything that holds was known.
        DeployKitError: A trial failed.
    """
    if not trials.subject.reference.task:
        require_enough(trials.subject.reference.n, budget.max_drop_pp)
    clock, seen = TrialClock(budget.time_limit_s), dict[tuple[str, ...], Trial]()

    def holds(kept: tuple[str, ...]) -> bool:
        what = f"{len(kept)} groups in float" if kept else "everything in int8"
        clock.require(what)
        trials.context.report("quantize", f"drop with {what}")
        seen[kept] = trials.trial(kept)
        return drop_of(seen[kept]).upper_pp <= budget.max_drop_pp

    if holds(()) and not budget.sensitivity:
        return _mix(trials, _untried(trials, _HOLDS), seen, (), budget=budget)
    if told := few(seen[()], budget):
        trials.context.report("quantize", told)
    rows, times = sensitivity(trials, clock)
    if drop_of(seen[()]).upper_pp <= budget.max_drop_pp:
        return _mix(trials, _decided(trials, rows, ()), seen, (), times, budget)
    ranked = worst_first(rows)
    cost = dict(zip((row.group for row in rows), _gains(rows), strict=True))
    kept = search(ranked, holds, cost.__getitem__, clock.more)
    if kept is not None and len(kept) == len(ranked) > 1:
        clock.require("a mix with fewer groups in float")  # all of them is no answer where there was no time to look
    rows = _decided(trials, rows, kept or ())
    if kept is None or len(kept) == len(ranked):
        mix = _mix(trials, rows, seen, tuple(ranked), times, budget)
        return replace(mix, found=False, remark=_unfound(seen[tuple(ranked)], mix, kept is not None))
    late = "" if clock.more() else "the time limit ended the search: a faster mix may exist"
    mix = _mix(trials, rows, seen, kept, times, budget)
    return replace(mix, remark="; ".join(filter(None, (late, few(seen[()], budget)))))


def require_enough(n: int, max_drop_pp: float) -> None:
    """Refuse a number of images that could not show that a budget is kept, even if no answer changed.

    Raises:
        InputError: Too few images, or a budget of 0.
    """
    least = paired.fewest_images(max_drop_pp / 100)
    if least is None:
        raise InputError("a drop of 0 points cannot be shown by any number of images", hint="e.g. --max-drop 0.3pt")
    if n < least:
        raise InputError(
            f"{n} images cannot show a drop of at most {max_drop_pp:g} points, even if no answer changed",
            hint=f"give {least:,} or more, none of them of the check set: --tune FOLDER (or an npz file)",
        )


def few(whole: Trial, budget: AccuracyBudget) -> str:
    """Explain that images were too few to show that everything may be INT8; empty where that is not what is missing."""
    drop = drop_of(whole)
    needed = n_needed(whole, budget.max_drop_pp)
    if needed is None or drop.upper_pp <= budget.max_drop_pp:
        return ""
    return (
        f"everything in int8 drops {drop.pp:+.2f} points on these {whole.n} images, too few to show that it keeps the "
        f"budget: about {needed:,} would"
    )


def measured(trials: TrialRunner, time_limit_s: float | None = None) -> Mix:
    """Measure the sensitivity of each group; nothing is decided.

    Raises:
        StageError: The time limit came first.
        DeployKitError: A trial failed.
    """
    clock = TrialClock(time_limit_s)
    clock.require("everything in int8")
    trial = trials.trial(())
    rows, times = sensitivity(trials, clock)
    rows = tuple(replace(row, why="" if row.why == _HOLDS else row.why) for row in _decided(trials, rows, ()))
    return _mix(trials, rows, {(): trial}, (), times)


def sensitivity(trials: TrialRunner, clock: "TrialClock") -> tuple[tuple[Decision, ...], GroupTimes]:
    """Try each group alone in INT8.

    Returns:
        A row for each group that can be chosen, nothing decided, and where the time of both engines goes.
    """
    every = [group for group in trials.groups() if group.name not in trials.always]
    others = [tuple(other.name for other in every if other is not group) for group in every]
    found = list[tuple[GroupSize, Trial]]()
    made = trials.trials(others, n=N_IMAGES)
    for number, group in enumerate(every, start=1):
        clock.require(f"{group.name} alone")
        trials.context.report("quantize", "each group alone in int8", done=number, total=len(every))
        found.append((group, next(made)))
    times = trials.times()
    rows = tuple(
        Decision(
            group=group.name,
            precision="int8",
            sqnr_db=trial.sqnr_db,
            kl=trial.kl,
            saved_ms=times.saved_ms(group.name),
            macs=group.macs,
            why="",
        )
        for group, trial in found
    )
    return rows, times


def worst_first(rows: Sequence[Decision]) -> list[str]:
    """Order groups by noise for each millisecond saved, the worst first; where one's time is not known, for each MAC.

    A saving below a twentieth of the mean is taken for that: medians of small layers differ by more than they save.
    """
    gains = _gains(rows)
    floor = max(sum(gains) / len(gains) / 20, 1e-12) if gains else 1.0
    costs = [_noise(row) / max(gain, floor) for row, gain in zip(rows, gains, strict=True)]
    return [rows[index].group for index in sorted(range(len(rows)), key=lambda index: (-costs[index], index))]


def _gains(rows: Sequence[Decision]) -> list[float]:
    """Return what INT8 saves in each group: ms, or multiply-accumulates where the time of one is not known."""
    times = [row.saved_ms for row in rows if row.saved_ms is not None]
    return times if len(times) == len(rows) and sum(times) > 0 else [float(row.macs) for row in rows]


def _noise(row: Decision) -> float:
    """Return noise over signal; infinite where the logits are not finite."""
    if row.sqnr_db is None or not math.isfinite(row.sqnr_db):
        return 0.0 if row.sqnr_db == math.inf else math.inf
    return float(10 ** (-row.sqnr_db / 10))


def _untried(trials: TrialRunner, why: str) -> tuple[Decision, ...]:
    rows = (
        Decision(group=group.name, precision="int8", sqnr_db=None, kl=None, saved_ms=None, macs=group.macs, why=why)
        for group in trials.groups()
    )
    return tuple(_asked_for(row, trials) for row in rows)


def _decided(trials: TrialRunner, rows: Sequence[Decision], kept: Sequence[str]) -> tuple[Decision, ...]:
    """Put down for every group what was decided and why, in graph order."""
    tried = {row.group: row for row in rows}
    decided = []
    for row in _untried(trials, ""):
        if row.group in kept:
            row = replace(tried[row.group], precision=trials.subject.float_type, why=_BREAKS)
        elif row.group in tried:
            row = _asked_for(replace(tried[row.group], why=_HOLDS), trials)
        decided.append(row)
    return tuple(decided)


def _asked_for(row: Decision, trials: TrialRunner) -> Decision:
    if row.group in trials.always:
        return replace(row, precision=trials.subject.float_type, why=ASKED)
    parts = [name.removeprefix(row.group) for name in trials.subject.asked if name.startswith(f"{row.group}.")]
    if not parts:
        return row
    return replace(row, why="; ".join(filter(None, (row.why, f"{', '.join(parts)} in float: {ASKED}"))))


def _measure(trial: Trial) -> str:
    if trial.drop is not None:
        return trial.drop.what
    return "top-1" if trial.labelled else "agreement"


def _mix(
    trials: TrialRunner,
    rows: tuple[Decision, ...],
    seen: Mapping[tuple[str, ...], Trial],
    kept: tuple[str, ...],
    times: GroupTimes | None = None,
    budget: AccuracyBudget | None = None,
) -> Mix:
    subject, drop, whole = trials.subject, drop_of(seen[kept]), drop_of(seen[()])
    floats = tuple(row.group for row in rows)
    return Mix(
        artifact="",
        target=subject.engine,
        evaluated_in=subject.evaluated_in,
        max_drop_pp=budget.max_drop_pp if budget is not None else None,
        judged_by=_measure(seen[kept]),
        images=subject.reference.images,
        n=seen[kept].n,
        n_sensitivity=min(N_IMAGES, seen[kept].n) if times is not None else 0,
        drop_pp=drop.pp,
        upper_pp=drop.upper_pp,
        int8_drop_pp=whole.pp,
        int8_upper_pp=whole.upper_pp,
        estimated_ms=times.total_ms((*kept, *trials.always)) if times is not None else None,
        int8_ms=times.total_ms(trials.always) if times is not None else None,
        float_ms=times.total_ms(floats) if times is not None else None,
        times_from=(times.source or times.why) if times is not None else "",
        trials=len(seen) + (sum(row.sqnr_db is not None for row in rows)),
        decisions=rows,
        asked=subject.asked,
        found=True,
    )


def _unfound(floats: Trial, mix: Mix, holds: bool) -> str:
    """Return why there is no mix, and what would help."""
    if holds:
        return "it holds with every group in float alone: build the float graph"
    drop = drop_of(floats)
    said = (
        f"with every group in float the drop is {drop.pp:+.2f} points, at most {drop.upper_pp:+.2f} (95 %), "
        f"on {mix.n} images"
    )
    assert mix.max_drop_pp is not None
    needed = n_needed(floats, mix.max_drop_pp)
    more = f"about {needed:,} images would show it" if needed is not None else "more images alone would not help"
    return f"{said}: {more}"


class TrialClock:
    """How much time there is."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s, self._begun = limit_s, time.monotonic()

    def more(self) -> bool:
        return self._limit_s is None or time.monotonic() - self._begun < self._limit_s

    def require(self, what: str) -> None:
        """End the search where its time is over.

        Raises:
            StageError: It is.
        """
        if not self.more():
            raise StageError(
                f"quantize: the time limit of {self._limit_s:g} s came before {what}",
                hint="run the same command again: what was tried is kept, and it goes on from there",
            )
