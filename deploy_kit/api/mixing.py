"""INT8 and float within an accuracy budget: `find_mix`, and the same within a run of the command line."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy_kit.analysis import budget
from deploy_kit.analysis.budget import AccuracyBudget
from deploy_kit.analysis.sensitivity import TrialRunner, TrialSubject
from deploy_kit.api import _step
from deploy_kit.api._step import Graph, PathLike, Progress, StoreLike
from deploy_kit.machine import environment
from deploy_kit.pipeline import Run
from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, keep_float, verify_mixes
from deploy_kit.recipe import Variant, overrides
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.records.passports import verify_out
from deploy_kit.stages import quantize, reference
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
        masks: Folder of the tuning images' masks, for task segment.
    """

    max_drop_pp: float | None
    time_limit_s: float | None
    sensitivity: bool
    target: str
    tune: str | None
    masks: str | None = None


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A graph within an accuracy budget, and the way to it.

    Attributes:
        artifact: The graph; None where no mix keeps the budget.
        mix: What was tried, and what was decided for each layer group.
    """

    artifact: Artifact | None
    mix: Mix


def find_mix(
    graph: Graph,
    max_drop: float | None,
    *,
    target: str = "onnxruntime",
    layout: Literal["portable", "tensorrt"] | None = None,
    keep: str | Sequence[str] = (),
    sensitivity: bool = False,
    tune: PathLike | None = None,
    tune_masks: PathLike | None = None,
    task: str | None = None,
    ignore_index: int | None = None,
    time_limit: float | None = None,
    calibration: PathLike | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    device: Device | str = "local",
    on: str = "",
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Mixed:
    """Find the fastest mix of INT8 and float whose accuracy drop keeps a budget.

    Args:
        graph: What `export` or `simplify` returned, or a checkpoint or ONNX file; it is simplified first.
        max_drop: Percentage points of the task's score that may be lost: the upper end of the drop's 95 % interval
            must keep it. None measures what each layer group costs, and decides nothing.
        target: The engine it is for.
        layout: INT8 layout; by default the target's.
        keep: Layer groups that stay in float in any case, by coordinate, e.g. ``transition1``.
        sensitivity: Measure each layer group in any case.
        tune: Labelled images to decide on; by default those of the calibration.
        tune_masks: Folder of the tuning images' masks, for task ``segment``.
        task: What the outputs mean; see `check` for this and the next.
        ignore_index: Class number of masks that is not judged.
        time_limit: Seconds after which no trial begins.
        calibration: Images to calibrate with; by default those that the graph was exported with.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        device: Where trials run.
        on: Where to compute what needs no particular machine, see `deploy`.
        out: Also copy the graph and its passport to this path.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The graph, None where no mix keeps the budget; and what was tried.

    Raises:
        RequestError: The scheme cannot leave layer groups in float.
        InputError: There are no images to calibrate or tune with, or the check judges by them.
    """
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    base = overrides.with_inputs(
        _step.recipe_of(graph, opened_store),
        calibration=_step.text_or_none(calibration),
        skip_bad=skip_bad,
        orientation=orientation,
        task=task,
        ignore_index=ignore_index,
    )
    request = MixRequest(
        max_drop_pp=max_drop,
        time_limit_s=time_limit,
        sensitivity=sensitivity,
        target=target,
        tune=_step.text_or_none(tune),
        masks=_step.text_or_none(tune_masks),
    )
    with _step.opened(base, opened_store, on_progress, stage="quantize", device=device, on=on) as step:
        wish = VariantRequest(precisions=("int8",), target=target, layout=layout)
        variant, remarks = choose_variant(wish, base, environment.describe_machine().isa, environment.library_version)
        for remark in remarks:
            step.remark(remark)
        variant = keep_float(variant, (keep,) if isinstance(keep, str) else tuple(keep))
        simplified = _step.simplified(step.run, graph)
        mixed = mix_in_run(step.run, simplified, variant, request, step.remark)
        if mixed.artifact is not None and copy_to is not None:
            opened_store.copy_out(mixed.artifact, copy_to)
        return mixed


def mix_in_run(
    run: Run, simplified: Artifact, variant: Variant, request: MixRequest, remark: Callable[[str], None]
) -> Mixed:
    """Find the mix for a budget, or measure the sensitivity alone, and make the graph.

    Args:
        run: Recipe, store and devices.
        simplified: The float graph.
        variant: What everything else is quantized as.
        request: The budget.
        remark: Called with what a user should know beside the result.

    Raises:
        InputError: There are no images to tune with, or the check judges by them.
        DeployKitError: As `budget.find_mix` and `quantize.run`.
    """
    verify_mixes(variant)
    preprocess = simplified.preprocess
    calibration = quantize.require_images(variant, run.calibration_images)
    quantize.examined(calibration.open(preprocess), simplified, run.host)
    tuning = calibration if request.tune is None else dataclasses.replace(calibration, name=request.tune)
    tuning = dataclasses.replace(tuning, masks=request.masks)
    budget.refuse_overlap(tuning, run.check_images, simplified)
    if request.max_drop_pp is not None:
        budget.refuse_few(tuning, simplified, run.recipe.check.task, request.max_drop_pp)
    logits = run.timed(
        "export",
        f"answers on {tuning.name}",
        lambda: reference.run(
            run.recipe.source,
            preprocess,
            run.host,
            images=tuning.open(preprocess),
            wish=reference.wish_of(run.recipe.check),
        ),
    )
    if not (logits.labelled if logits.task else logits.top1 is not None):
        remark(f"{tuning.name}: no labels that the task takes: the budget applies to agreement with the checkpoint")
    subject = TrialSubject(
        simplified=simplified,
        variant=variant,
        calibration=calibration,
        tuning=tuning,
        reference=logits,
        engine=request.target,
    )
    if subject.evaluated_in != request.target:
        remark(f"trials run on {subject.evaluated_in} instead of '{request.target}': it computes the same graphs here")
    with TrialRunner(subject=subject, context=run.target, host=run.host.connection) as trials:
        mix = _found(trials, request)
    if not mix.found:
        return Mixed(artifact=None, mix=mix)
    chosen = [row.group for row in mix.decisions if row.precision != "int8" and row.why != budget.ASKED]
    mixed = keep_float(variant, (*subject.asked, *chosen))
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
    return Mixed(artifact=artifact, mix=kept)


def _found(trials: TrialRunner, request: MixRequest) -> Mix:
    if request.max_drop_pp is None:
        return budget.measured(trials, request.time_limit_s)
    limits = AccuracyBudget(
        max_drop_pp=request.max_drop_pp, time_limit_s=request.time_limit_s, sensitivity=request.sensitivity
    )
    return budget.find_mix(trials, limits)
