"""Fewer multiply-accumulates: `slim`, and the same within a run of the command line."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deploy_kit import pipeline
from deploy_kit.analysis import budget, slim_budget, slim_times
from deploy_kit.api import _step
from deploy_kit.api._step import Graph, PathLike, Progress, StoreLike
from deploy_kit.base.errors import RequestError
from deploy_kit.images import ImageSource
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe, SlimTable, overrides, targets
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.passports import verify_out
from deploy_kit.records.slimming import Slimming
from deploy_kit.stages import reference
from deploy_kit.stages import slim as stage


@dataclass(frozen=True, kw_only=True)
class SlimRequest:
    """What was asked for: a share or a budget, one of the two.

    Attributes:
        macs: Share of the multiply-accumulates, in 0..1.
        max_drop_pp: The budget in percentage points.
        tune: Image set that chooses the share for a budget.
        step: Numbers of channels are multiples of it.
        target: Engine whose measured milliseconds are what a layer costs; None for multiply-accumulates.
        distill: Image set to train on afterwards.
        minutes: Most minutes of that training.
    """

    macs: float | None
    max_drop_pp: float | None
    tune: str | None
    step: int
    target: str | None = None
    distill: str | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Refuse a request that names both or neither, or images that would choose nothing.

        Raises:
            RequestError: It does.
        """
        if (self.macs is None) == (self.max_drop_pp is None):
            raise RequestError(
                "slim: expected a share of the multiply-accumulates or an accuracy budget, one of the two",
                hint="deploykit slim --macs 0.6, or deploykit slim --max-drop 0.3pt --tune FOLDER",
            )
        if self.max_drop_pp is not None and self.tune is None:
            raise RequestError(
                "slim: an accuracy budget needs images that choose the share, other than those weights are fitted to",
                hint="give some thousand, with or without labels: --tune FOLDER (or an npz file)",
            )
        if self.distill is not None and self.macs is None:
            raise RequestError(
                "slim: a search for an accuracy budget tries many shares, and --distill trains one",
                hint="search first, then give the share that it found: --macs SHARE --distill FOLDER",
            )
        if self.minutes is not None and self.distill is None:
            raise RequestError(
                "slim: --minutes is the time of --distill, and there is none", hint="--distill FOLDER --minutes 10"
            )
        if self.macs is not None and self.tune is not None:
            raise RequestError(
                "slim: --tune applies to --max-drop only", hint="deploykit slim --max-drop 0.3pt --tune FOLDER"
            )


def slim(
    graph: Graph,
    *,
    macs: float | None = None,
    max_drop: float | None = None,
    tune: PathLike | None = None,
    target: str = "onnxruntime",
    price: Literal["ms", "macs"] = "ms",
    channel_step: int | None = None,
    calibration: PathLike | None = None,
    distill: PathLike | None = None,
    minutes: float | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Slimming:
    """Remove channels that the answers depend on least, and refit what follows: another network, with less work.

    Args:
        graph: What `export` or `simplify` returned, or a checkpoint or ONNX file; it is simplified first.
        macs: Share of the multiply-accumulates that may be left, in 0..1.
        max_drop: Percentage points of top-1 that may be lost instead: the smallest share is looked for whose drop keeps
            it with the upper end of its 95 % interval, on `tune` and then on the check images.
        tune: Images that choose the share for `max_drop`; without labels every changed answer counts as lost.
        target: The engine it is for: its milliseconds are measured, its kernels give the step.
        price: What a layer costs: ``ms`` of the target, or ``macs``, the same on any machine.
        channel_step: Numbers of channels are multiples of it; by default the width of the target's kernels.
        calibration: Images that weights are refitted to; by default those that the graph was exported with. Labels are
            not read.
        distill: Images that the slimmed network is trained on afterwards, to the checkpoint's answers; labels are not
            read. Goes with `macs`.
        minutes: Most minutes of that training; 10 by default.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        out: Also copy the graph and its passport to this path.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The graph, what was kept in it, and for a budget what was tried.

    Raises:
        RequestError: Neither or both of `macs` and `max_drop`.
        InputError: No images, too few, or the same for two purposes; or a graph that cannot be slimmed so far.
    """
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    request = SlimRequest(
        macs=macs,
        max_drop_pp=max_drop,
        tune=_step.text_or_none(tune),
        step=channel_step or targets.find_target(target).channels,
        target=target if price == "ms" else None,
        distill=_step.text_or_none(distill),
        minutes=minutes,
    )
    base = overrides.with_inputs(
        overrides.with_slim(_step.recipe_of(graph, opened_store), None),
        calibration=_step.text_or_none(calibration),
        skip_bad=skip_bad,
        orientation=orientation,
    )
    with _step.opened(base, opened_store, on_progress, stage="slim") as opened:
        found = slim_in_run(opened.run, _step.simplified(opened.run, graph), request)
        if found.slimmed is not None and copy_to is not None:
            opened_store.copy_out(found.slimmed.onnx, copy_to)
        return found


def slim_in_run(run: Run, simplified: Artifact, request: SlimRequest, *, explain_on: str | None = None) -> Slimming:
    """Slim a graph, and put the share that was found into the recipe in force.

    Args:
        run: Recipe, store and devices; the recipe does not slim.
        simplified: The float graph.
        request: The share or the budget.
        explain_on: Engine on which both graphs are profiled; None for no profile.

    Raises:
        DeployKitError: As `stages.slim.run` and `slim_budget.search`.
    """
    images, share, search = run.calibration_images, request.macs, None
    if share is not None:
        _with(run.recipe, share, request)  # refused before any work
    tuning = None if images is None or share is not None else tuning_images(run, simplified, request, images)
    curves, _ = stage.measured(simplified, run.host, images=images)
    if request.max_drop_pp is not None:
        assert images is not None and tuning is not None  # `measured` has refused a graph without images
        subject = subject_of(run, simplified, request, images, tuning)
        search, _ = slim_budget.search(subject, request.max_drop_pp, run.host)
        share = search.chosen.asked if search.found and search.chosen is not None else None
    if share is None:
        return Slimming(slimmed=None, search=search, refused=curves.refused)
    chosen, table = _with(run.recipe, share, request)
    training = None
    if request.distill is not None:
        assert images is not None  # `measured` has refused a graph without images
        training = dataclasses.replace(images, name=request.distill)
    run.store.recipe = chosen.model_dump(mode="json")
    found = run.timed(
        "slim", f"{share:g}", lambda: stage.run(simplified, table, run.host, images=images, training=training)
    )
    made = Slimming(slimmed=found, search=search, refused=curves.refused)
    if explain_on is None:
        return made
    assert images is not None  # `measured` has refused a graph without images
    savings, why = slim_times.savings(simplified, found.onnx, explain_on, run.host, images)
    return dataclasses.replace(made, savings=savings, no_savings=why)


def _with(base: Recipe, share: float, request: SlimRequest) -> tuple[Recipe, SlimTable]:
    """Return a recipe that slims to a share, and its table."""
    table: dict[str, object] = {"macs": share, "step": request.step, "target": request.target}
    if base.quantize.calibration is not None:  # a later step may calibrate with other images, and must find this graph
        table["images"] = base.quantize.calibration
    if request.distill is not None:
        table |= {"distill": request.distill}
    if request.minutes is not None:
        table |= {"distill_minutes": request.minutes}
    made = overrides.with_slim(base, table)
    assert made.slim is not None
    return made, made.slim


def tuning_images(run: Run, simplified: Artifact, request: SlimRequest, images: ImageSource) -> ImageSource:
    """Return the images that choose the share for a budget; nothing is computed.

    Raises:
        InputError: Images serve two purposes, or are so few that they could not show that the budget is kept.
    """
    tuning = dataclasses.replace(images, name=request.tune or "")
    slim_budget.refuse_shared(images, tuning, run.check_images, simplified)
    assert request.max_drop_pp is not None  # a share has nothing to choose
    for judging in (tuning, run.check_images):
        if not judging.is_noise:
            budget.refuse_few(judging, simplified, run.recipe.check.task, request.max_drop_pp)
    return tuning


def subject_of(
    run: Run, simplified: Artifact, request: SlimRequest, images: ImageSource, tuning: ImageSource
) -> slim_budget.SlimSubject:
    """Return what a search works on, with the checkpoint's answers on the images that choose and on those that judge.

    Args:
        run: Recipe, store and devices.
        simplified: The float graph.
        request: The budget.
        images: What weights are refitted to.
        tuning: What chooses (`tuning_images`).
    """
    source, preprocess = run.recipe.source, simplified.preprocess
    logits = run.timed(
        "export",
        f"answers on {tuning.name}",
        lambda: reference.run(source, preprocess, run.host, images=tuning.open(preprocess)),
    )
    checked = None
    if not run.check_images.is_noise:
        checked = pipeline.reference_logits(run, pipeline.exported(run))
    return slim_budget.SlimSubject(
        simplified=simplified,
        images=images,
        tuning=tuning,
        tuning_logits=logits,
        check=run.check_images,
        check_logits=checked,
        step=request.step,
        target=request.target,
    )
