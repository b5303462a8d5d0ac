"""``quantize --max-drop`` and ``--sensitivity``: the mix of precisions, found and told."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from deploy_kit.analysis import budget
from deploy_kit.analysis.budget import AccuracyBudget
from deploy_kit.analysis.sensitivity import TrialRunner, TrialSubject
from deploy_kit.base.errors import RequestError
from deploy_kit.cli._console import Console, table
from deploy_kit.images import ImageSource
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
    """What was asked for.

    Attributes:
        max_drop_pp: The budget; None where the sensitivity alone is wanted.
        time_limit_s: No trial begins after it; None for no limit.
        sensitivity: Measure every group in any case.
        target: The engine it is for.
        tune: Image set to tune with; None for the calibration's.
    """

    max_drop_pp: float | None
    time_limit_s: float | None
    sensitivity: bool
    target: str
    tune: str | None


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What ``--max-drop --json`` prints: the passport, None where no mix keeps the budget, and the way to the mix."""

    artifact: Artifact | None
    mix: Mix


def varied(variant: Variant, keep: Sequence[str]) -> Variant:
    """Give a variant that leaves layer groups in float, under a name of its own.

    Raises:
        RequestError: Its scheme cannot.
    """
    if not keep:
        return variant
    verify_scheme(variant)
    return variant.model_copy(
        update={
            "name": f"{variant.name.removesuffix('-mixed')}-mixed",
            "options": {**variant.options, "keep": list(keep)},
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


def made(run: Run, simplified: Artifact, variant: Variant, wanted: MixRequest, console: Console) -> Mixed:
    """Find the mix for a budget, or measure the sensitivity alone, and make the graph.

    Raises:
        InputError: There are no images to tune with, or the check judges by them.
        DeployKitError: As `budget.find_mix` and `quantize.run`.
    """
    verify_scheme(variant)
    preprocess = simplified.preprocess
    calibration = quantize.require_images(variant, run.calibration_images)
    quantize.examined(calibration.open(preprocess), simplified, run.host)
    tuning = calibration if wanted.tune is None else ImageSource(name=wanted.tune, skip_bad=calibration.skip_bad)
    budget.refuse_overlap(tuning, run.check_images, simplified)
    logits = run.timed(
        "export",
        f"answers on {tuning.name}",
        lambda: reference.run(run.recipe.source, preprocess, run.host, images=tuning.open(preprocess)),
    )
    if logits.top1 is None:
        console.say(f"{tuning.name}: no single label for each image, so the budget is on agreement with the checkpoint")
    subject = TrialSubject(
        simplified=simplified,
        variant=variant,
        calibration=calibration,
        tuning=tuning,
        reference=logits,
        engine=wanted.target,
    )
    if subject.evaluated_in != wanted.target:
        console.say(
            f"'{wanted.target}' is not run for each trial: {subject.evaluated_in} computes the same graphs here"
        )
    with TrialRunner(subject=subject, context=run.target, host=run.host.connection) as trials:
        found = _found(trials, wanted)
    if not found.found:
        return Mixed(artifact=None, mix=found)
    chosen = [row.group for row in found.decisions if row.precision != "int8" and row.why != budget.ASKED]
    mixed = varied(variant, (*subject.asked, *chosen))
    artifact = run.timed(
        "quantize", mixed.name, lambda: quantize.run(simplified, mixed, run.host, calibration=calibration)
    )
    key = Key(
        stage="budget",
        name=mixed.name,
        inputs=(artifact.sha256, logits.sha256),
        options=[wanted.target, found.max_drop_pp],
        versions=(("stage", VERSION),),
    )
    mix, _ = run.store.produce(
        Mix, key, lambda folder, home: dataclasses.replace(found, artifact=artifact.sha256), again=True
    )
    return Mixed(artifact=artifact, mix=mix)


def _found(trials: TrialRunner, wanted: MixRequest) -> Mix:
    if wanted.max_drop_pp is None:
        return budget.measured(trials, wanted.time_limit_s)
    limits = AccuracyBudget(
        max_drop_pp=wanted.max_drop_pp, time_limit_s=wanted.time_limit_s, sensitivity=wanted.sensitivity
    )
    return budget.find_mix(trials, limits)


def pairs_of(mix: Mix) -> list[tuple[str, str]]:
    """Say in a few lines what was found."""
    drop = "drop" if mix.judged_by == "top-1" else "lost agreement"
    rows = [("images", f"{mix.n} ({mix.images}), {drop} in points with the upper end of its 95 % interval")]
    if mix.max_drop_pp is not None:
        rows.append(("budget", f"{mix.max_drop_pp:g} points: {'kept' if mix.found else 'not kept'}"))
    rows.append((mix.whole, f"{mix.int8_drop_pp:+.2f}, at most {mix.int8_upper_pp:+.2f}"))
    if mix.max_drop_pp is not None and mix.kept:
        rows.append(("this mix", f"{mix.drop_pp:+.2f}, at most {mix.upper_pp:+.2f}"))
        n = sum(row.precision != "int8" for row in mix.decisions)
        rows.append(("in float", f"{n} of {len(mix.decisions)} groups: {', '.join(mix.kept)}"))
    if took := mixed_precision.latency(mix):
        rows.append(("latency", took))
    rows.append(("trials", str(mix.trials)))
    return [*rows, ("remark", mix.remark)] if mix.remark else rows


def sensitivity(mix: Mix, *, only_kept: bool) -> str:
    """Lay out the table of decisions: the groups in float, or all; empty where there is nothing to tell."""
    rows = [row for row in mix.decisions if not only_kept or row.precision != "int8"]
    if not rows or (only_kept and not mix.n_sensitivity):
        return ""
    return table(mixed_precision.HEADINGS, [mixed_precision.cells(row) for row in rows])
