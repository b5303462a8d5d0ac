"""One accuracy budget over slimming, INT8 and mixed precision: the fastest combination that keeps it.

    1. shares of 0.05, 0.10, … 1 of the multiply-accumulates are bisected for the smallest whose INT8 keeps the budget
    2. one share further down, where slimming alone still keeps it, a mix of INT8 and float is searched (`budget`)
    3. what came of both, and the whole network in float and in INT8, run in turns on the target: of those that keep the
       budget the fastest is chosen

All of it sees the tuning images alone; the chosen graph is then judged on the check images.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deploy_kit import pipeline
from deploy_kit.analysis import slim_budget
from deploy_kit.analysis.slim_budget import SlimSubject
from deploy_kit.api import mixing, slimming
from deploy_kit.api.mixing import MixRequest
from deploy_kit.base.errors import RequestError
from deploy_kit.measure import latency
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.pipeline import Run
from deploy_kit.quantization import schemes
from deploy_kit.recipe import BuildEntry, Recipe, Variant, overrides, targets
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.records.slimming import SlimSearch, SlimTrial
from deploy_kit.stages import bench, build, quantize

Tried = tuple[Artifact, SlimTrial]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What the budget is spent for: the first engine of the recipe that has an INT8 variant."""

    entry: BuildEntry
    variant: Variant

    @property
    def row(self) -> str:
        """Row of preferences (`targets.target_of`)."""
        return targets.target_of(self.entry.engine)


def find_fastest(
    run: Run, max_drop_pp: float, tune: str, remark: Callable[[str], None]
) -> tuple[SlimSearch, Recipe | None]:
    """Find the fastest combination within a budget.

    Args:
        run: Recipe, store and devices; the recipe does not slim, and says which engines are to be built.
        max_drop_pp: Percentage points that the upper end of the drop's interval may reach.
        tune: Image set that chooses.
        remark: Called with what a user should know beside the result.

    Returns:
        What was tried and timed, and the recipe that makes the choice; None where nothing keeps the budget.

    Raises:
        RequestError: The recipe builds no INT8.
        InputError: There are no images, too few, or the same for two purposes.
        DeployKitError: A stage failed.
    """
    target = _first_int8(run.recipe)
    if target is None:
        raise RequestError(
            "--slim auto looks for the fastest combination of slimming and INT8, and no INT8 is to be built",
            hint="give images to calibrate with, --calibration FOLDER, and leave --precisions out or name int8 in it",
        )
    calibration = quantize.require_images(target.variant, run.calibration_images)
    simple = pipeline.simplified(run, pipeline.exported(run)).onnx
    step = targets.find_target(target.row).channels
    request = slimming.SlimRequest(macs=None, max_drop_pp=max_drop_pp, tune=tune, step=step, target=target.entry.engine)
    tuning = slimming.tuning_images(run, simple, request, calibration)
    subject = dataclasses.replace(
        slimming.subject_of(run, simple, request, calibration, tuning),
        variant=target.variant,
        calibration=calibration,
    )
    shares = [*slim_budget.shares(subject, max_drop_pp, run.host), 1.0]
    tried, best = slim_budget.smallest(subject, shares, max_drop_pp, run.host)
    whole = [slim_budget.tuned(subject, 1.0, variant, run.host) for variant in (None, target.variant)]
    candidates = dict(whole)
    if best is not None:
        candidates |= [slim_budget.tuned(subject, best.asked, variant, run.host) for variant in (None, target.variant)]
    at = shares.index(best.asked) if best is not None else len(shares)
    if at and schemes.CATALOGUE.get(target.variant.scheme).planned is not None:
        candidates |= _mixed(run, subject, shares[at - 1], target, request, remark)
    timed = _timed(run, target.entry, list(candidates.items()))
    keeping = [one for one in timed if one[1].upper_pp <= max_drop_pp and one[1].ms is not None]
    graph, chosen = min(keeping, key=lambda one: one[1].ms or (0.0,), default=(None, None))
    found = SlimSearch(
        max_drop_pp=max_drop_pp,
        tried=tried,
        chosen=chosen,
        judged=None if graph is None or chosen is None else slim_budget.confirmed(subject, graph, chosen, run.host),
        artifact="" if chosen is None else slim_budget.slimmed(subject, chosen.asked, run.host).onnx.sha256,
        compared=tuple(trial for _, trial in timed),
    )
    found = slim_budget.kept(found, subject, run.host)
    return found, None if chosen is None else _chosen(run.recipe, chosen, max_drop_pp, pricing(run.recipe))


def pricing(base: Recipe) -> dict[str, object]:
    """Return the keys of a slim table that price layers by their time on the first engine with an INT8 variant.

    Without such an engine there are none: layers are then priced by their multiply-accumulates.
    """
    target = _first_int8(base)
    if target is None:
        return {}
    return {"step": targets.find_target(target.row).channels, "target": target.entry.engine}


def _first_int8(base: Recipe) -> _Target | None:
    variants = {variant.name: variant for variant in base.quantize.variants}
    for entry in base.build.engines:
        for name in entry.variants:
            if name in variants and schemes.CATALOGUE.get(variants[name].scheme).precision == "int8":
                return _Target(entry=entry, variant=variants[name])
    return None


def _mixed(
    run: Run,
    subject: SlimSubject,
    share: float,
    target: _Target,
    request: slimming.SlimRequest,
    remark: Callable[[str], None],
) -> dict[Artifact, SlimTrial]:
    """Search a mix at a share whose INT8 breaks the budget; nothing where slimming alone does, or no mix keeps it."""
    assert request.max_drop_pp is not None
    small, alone = slim_budget.tuned(subject, share, None, run.host)
    if alone.upper_pp > request.max_drop_pp:
        return {}
    wish = MixRequest(
        max_drop_pp=request.max_drop_pp,
        time_limit_s=None,
        sensitivity=False,
        target=target.row,
        tune=request.tune,
    )
    found = mixing.mix_in_run(run, small, target.variant, wish, remark)
    if found.artifact is None:
        return {}
    like = dataclasses.replace(alone, precision="int8", kept=_floats(found.mix))
    return {found.artifact: slim_budget.judge(found.artifact, like, subject.tuning, subject.tuning_logits, run.host)}


def _floats(mix: Mix) -> tuple[str, ...]:
    return tuple(row.group for row in mix.decisions if row.precision != "int8")


def _timed(run: Run, entry: BuildEntry, candidates: Sequence[Tried]) -> list[Tried]:
    """Build what was tried and let it run in turns on the target; the first is what the others are held against."""
    engines = [
        dataclasses.replace(build.run(graph, entry, run.target)[0], name=trial.what) for graph, trial in candidates
    ]
    table = run.recipe.bench.model_copy(
        update={"baseline": None, "latency_budget_ms": None, "fail_on_regression": None, "batch": ()}
    )
    measured, _ = bench.run(tuple(engines), table, run.target)
    times = {one.label: one for one in measured.measurements}
    first = times.get(engines[0].label)
    return [
        (graph, trial if engine.label not in times else _with_times(trial, times[engine.label], first))
        for (graph, trial), engine in zip(candidates, engines, strict=True)
    ]


def _with_times(trial: SlimTrial, measured: Measurement, base: Measurement | None) -> SlimTrial:
    turns = [statistics.median(turn) for turn in measured.by_round if turn]
    return dataclasses.replace(
        trial,
        engine=measured.label.rpartition(" · ")[2],
        ms=(statistics.median(turns), *latency.median_interval(turns)),
        faster=speed_up(base, measured) if base is not None and base is not measured else None,
    )


def _chosen(base: Recipe, chosen: SlimTrial, max_drop_pp: float, more: dict[str, Any]) -> Recipe:
    """Return the recipe that makes the choice: its share, and the layer groups that stay in float."""
    made = base if chosen.asked == 1 else overrides.with_slim_within(base, chosen.asked, max_drop_pp, more)
    variants = tuple(
        variant.model_copy(update={"options": {**variant.options, "keep": list(chosen.kept)}})
        if chosen.kept and schemes.CATALOGUE.get(variant.scheme).planned is not None
        else variant
        for variant in made.quantize.variants
    )
    return made.model_copy(update={"quantize": made.quantize.model_copy(update={"variants": variants})})
