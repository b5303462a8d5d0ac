"""``quantize --max-drop`` and ``--sensitivity``: find a mix of precisions, make its graph, and show both."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from deploy_kit.analysis import budget
from deploy_kit.analysis.budget import AccuracyBudget
from deploy_kit.analysis.sensitivity import TrialRunner, TrialSubject
from deploy_kit.base.errors import RequestError
from deploy_kit.cli._console import Console, table
from deploy_kit.pipeline import Run
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Variant
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.stages import quantize, reference
from deploy_kit.stages.report import mixed_precision
from deploy_kit.store import Key

VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class MixRequest:
    """A search for a mix of precisions.

    Attributes:
        max_drop_pp: Accuracy budget in percentage points; None measures the sensitivity alone.
        time_limit_s: No trial begins after it; None for no limit.
        sensitivity: Measure every group in any case.
        target: Engine the graph is for.
        tune: Image set to tune with; None for the calibration's.
    """

    max_drop_pp: float | None
    time_limit_s: float | None
    sensitivity: bool
    target: str
    tune: str | None

    @property
    def empty(self) -> bool:
        """Whether nothing is to be searched."""
        return self.max_drop_pp is None and not self.sensitivity


@dataclass(frozen=True, kw_only=True)
class MixResult:
    """What ``--max-drop --json`` prints.

    Attributes:
        artifact: The graph; None where no mix keeps the budget.
        mix: The decisions that led to it.
    """

    artifact: Artifact | None
    mix: Mix


def verify(request: MixRequest) -> None:
    """Refuse options of a search where none is asked for.

    Raises:
        RequestError: One was given.
    """
    if request.empty and (request.tune or request.time_limit_s):
        raise RequestError(
            "--tune and --time-limit apply to --max-drop and --sensitivity only",
            hint="deploykit quantize --int8 --max-drop 0.3pt",
        )


def with_float_groups(variant: Variant, groups: Sequence[str]) -> Variant:
    """Return a variant that leaves layer groups in float, under a name of its own.

    Raises:
        RequestError: Its scheme cannot.
    """
    if not groups:
        return variant
    verify_scheme(variant)
    return variant.model_copy(
        update={
            "name": f"{variant.name.removesuffix('-mixed')}-mixed",
            "options": {**variant.options, "keep": list(groups)},
        }
    )


def verify_scheme(variant: Variant) -> None:
    """Refuse a scheme that quantizes everything or nothing.

    Raises:
        RequestError: It does.
    """
    if schemes.CATALOGUE.get(variant.scheme).planned is None:
        raise RequestError(
            f"scheme '{variant.scheme}' cannot leave layer groups in float",
            hint="--keep, --max-drop and --sensitivity need --int8 with layout portable or tensorrt",
        )


def find_and_quantize(
    run: Run, simplified: Artifact, variant: Variant, request: MixRequest, console: Console
) -> MixResult:
    """Find the mix for a budget, or measure the sensitivity alone, and quantize the graph.

    Raises:
        InputError: There are no images to tune with, or the check judges by them.
        DeployKitError: As `budget.find_mix` and `quantize.run`.
    """
    verify_scheme(variant)
    preprocess = simplified.preprocess
    calibration = quantize.require_images(variant, run.calibration_images)
    quantize.examined(calibration.open(preprocess), simplified, run.host)
    tuning = calibration if request.tune is None else dataclasses.replace(calibration, name=request.tune)
    budget.refuse_overlap(tuning, run.check_images, simplified)
    logits = run.timed(
        "export",
        f"answers on {tuning.name}",
        lambda: reference.run(run.recipe.source, preprocess, run.host, images=tuning.open(preprocess)),
    )
    if logits.top1 is None:
        console.say(
            f"{tuning.name}: images without one label each: the budget applies to agreement with the checkpoint"
        )
    subject = TrialSubject(
        simplified=simplified,
        variant=variant,
        calibration=calibration,
        tuning=tuning,
        reference=logits,
        engine=request.target,
    )
    if subject.evaluated_in != request.target:
        console.say(
            f"trials run on {subject.evaluated_in} instead of '{request.target}': it computes the same graphs here"
        )
    with TrialRunner(subject=subject, context=run.target, host=run.host.connection) as trials:
        mix = _search(trials, request)
    if not mix.found:
        return MixResult(artifact=None, mix=mix)
    chosen = [row.group for row in mix.decisions if row.precision != "int8" and row.why != budget.ASKED]
    mixed = with_float_groups(variant, (*subject.asked, *chosen))
    artifact = run.timed(
        "quantize", mixed.name, lambda: quantize.run(simplified, mixed, run.host, calibration=calibration)
    )
    key = Key(
        stage="budget",
        name=mixed.name,
        inputs=(artifact.sha256, logits.sha256),
        options=[request.target, mix.max_drop_pp],
        versions=(("stage", VERSION),),
    )
    kept, _ = run.store.produce(
        Mix, key, lambda folder, home: dataclasses.replace(mix, artifact=artifact.sha256), again=True
    )
    return MixResult(artifact=artifact, mix=kept)


def _search(trials: TrialRunner, request: MixRequest) -> Mix:
    if request.max_drop_pp is None:
        return budget.measured(trials, request.time_limit_s)
    limits = AccuracyBudget(
        max_drop_pp=request.max_drop_pp, time_limit_s=request.time_limit_s, sensitivity=request.sensitivity
    )
    return budget.find_mix(trials, limits)


def summary_rows(mix: Mix) -> list[tuple[str, str]]:
    """Summarize a mix as (name, value) lines."""
    drop = "drop" if mix.judged_by == "top-1" else "lost agreement"
    rows = [("images", f"{mix.n} ({mix.images}), {drop} in points with the upper end of its 95 % interval")]
    if mix.max_drop_pp is not None:
        rows.append(("budget", f"{mix.max_drop_pp:g} points: {'kept' if mix.found else 'not kept'}"))
    rows.append((mix.whole, f"{mix.int8_drop_pp:+.2f}, at most {mix.int8_upper_pp:+.2f}"))
    if mix.max_drop_pp is not None and mix.kept:
        rows.append(("this mix", f"{mix.drop_pp:+.2f}, at most {mix.upper_pp:+.2f}"))
        n = sum(row.precision != "int8" for row in mix.decisions)
        rows.append(("in float", f"{n} of {len(mix.decisions)} groups: {', '.join(mix.kept)}"))
    if latency := mixed_precision.latency(mix):
        rows.append(("latency", latency))
    rows.append(("trials", str(mix.trials)))
    return [*rows, ("remark", mix.remark)] if mix.remark else rows


def decision_table(mix: Mix, *, only_float: bool) -> str:
    """Lay out the decisions for all layer groups, or for those in float; empty where there is nothing to show."""
    rows = [row for row in mix.decisions if not only_float or row.precision != "int8"]
    if not rows or (only_float and not mix.n_sensitivity):
        return ""
    return table(mixed_precision.HEADINGS, [mixed_precision.cells(row) for row in rows])
