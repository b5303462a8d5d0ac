"""Engine against the checkpoint's own logits, on tensors and on labels where there are any. A failure is an answer."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.accuracy import consistency, metrics, paired, sampling, scores
from deploy_kit.accuracy.scores import auroc, flips
from deploy_kit.accuracy.scores import classification as single
from deploy_kit.accuracy.tasks import Scoring
from deploy_kit.base.errors import CheckError, InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.devices import engine_parts, inference, links, task_comparison
from deploy_kit.devices.links import Connection
from deploy_kit.images import Crops, ImageSet, ImageSource, calibration_checks, check_sets, masks
from deploy_kit.images.arrays import write_npy
from deploy_kit.parallel import ONE_PROCESS
from deploy_kit.recipe import CheckTable
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess, ReferenceLogits
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import ClassScore, EngineOutputs, LabelScore, Sample, TaskScores, TextDifference
from deploy_kit.records.results import Limits, ParityReport

VERSION = "9"
_WORST, _SAMPLE_BYTES = 10, 32 << 20
_NOTHING_ASKED = "nothing is asked of {0}: recipe.check.limits has no row '{0}'"
_PROBABILITIES = "the outputs are probabilities already ({}): confidences are taken as they are"


def run(
    engine: Artifact, table: CheckTable, context: Context, *, reference: ReferenceLogits, images: ImageSource
) -> tuple[ParityReport | NotRun, bool]:
    """Compare one engine with the reference logits, and mark it where it is not accepted.

    Args:
        engine: The engine to judge.
        table: Limits by precision.
        context: Where.
        reference: The checkpoint's own logits.
        images: The set that the reference logits are of.

    Returns:
        The report (or why it cannot run here), and whether the store had it.

    Raises:
        CheckError: The engine gives logits of another shape, or the images changed since the reference was computed.
        EngineCrashError: Native code died.
    """
    limits = table.limits[engine.precision].record() if engine.precision in table.limits else Limits()

    def make(folder: object, home: str) -> ParityReport:
        return _compare(engine, reference, limits, images.open(engine.preprocess), context, every=table.every_image)

    try:
        report, reused = context.produce(
            ParityReport,
            make,
            stage="check",
            name=f"{engine.name}.{engine.engine}",
            inputs=(engine.sha256, reference.sha256),
            options=[limits, engine.options, engine.engine, reference.path, *(["every"] if table.every_image else [])],
            versions=_versions(context),
        )
    except inference.UnavailableHere as found:
        return NotRun(artifact=engine.sha256, label=engine.label, why=str(found)), False
    verdict = report.verdict
    if verdict.word == "accepted":
        context.store.accept(engine)
    else:
        context.store.reject(engine, verdict)
    return report, reused


def by_labels(
    engine: Artifact, context: Context, *, images: ImageSource, min_top1: float | None = None
) -> LabelScore | NotRun:
    """Score an engine on labelled images where there is nothing to compare it with.

    Args:
        engine: The engine to judge.
        context: Where.
        images: Labelled images, one label each.
        min_top1: Least top-1 accuracy in 0..1 to accept.

    Returns:
        The score (or why it cannot run here).

    Raises:
        InputError: The images have no labels, or several each, or labels that the engine has no class for.
        CheckError: An output is no finite number.
        EngineCrashError: Native code died.
    """
    why = why_unavailable(engine, context.connection)
    if why:
        return NotRun(artifact=engine.sha256, label=engine.label, why=why)
    image_set = images.open(engine.preprocess)
    labels = image_set.labels
    if labels is None or image_set.multilabel or any(len(output.shape) != 2 for output in engine.outputs):
        found = "several" if labels is not None else "none"
        raise InputError(
            f"{image_set.name}: expected one label an image of one row of classes, found {found}",
            hint="give --against CHECKPOINT",
        )
    if len(engine.outputs) == 1 and isinstance(classes := engine.outputs[0].shape[1], int):
        check_sets.verify_labels(image_set, classes)  # before minutes are spent
    inferred = _inferred(engine, image_set, context)
    logits, names = inferred.logits, image_set.classes
    check_sets.verify_labels(image_set, logits.shape[1])
    if not np.isfinite(logits).all():
        raise CheckError(f"{engine.label}: a logit is no finite number")

    def class_name(index: int) -> str:
        return names[index] if names else ""

    hits, copies = metrics.top1_hits(logits, labels), check_sets.copies(image_set)
    top1 = float(hits.mean())
    low, high = paired.wilson_interval(round(top1 * image_set.n), image_set.n)
    return LabelScore(
        artifact=engine.sha256,
        label=engine.label,
        images=image_set.name,
        n=image_set.n,
        top1=top1,
        low=low,
        high=high,
        top5=single.top_k(logits, labels, 5) if logits.shape[1] > 5 else None,
        min_top1=min_top1,
        doubts=(
            *single.describe_mistaken_labels(logits, labels, class_name),
            *single.describe_permuted_labels(logits, labels, class_name),
            *single.describe_guessing(hits, logits.shape[1]),
            *copies.doubts,
        ),
        remarks=copies.remarks,
        settings=inferred.settings,
    )


def _inferred(engine: Artifact, image_set: ImageSet, context: Context) -> inference.Inferred:
    """Run all images of a set through an engine."""
    with inference.loaded_engine(context.connection, _target_of(engine, context)) as opened:
        return opened.all(
            image_set,
            engine.preprocess,
            progress=lambda done: context.report("check", engine.label, done=done, total=image_set.n),
        )


def _target_of(engine: Artifact, context: Context) -> inference.InferenceTarget:
    assert engine.engine is not None
    return inference.InferenceTarget(
        engine=engine.engine, path=context.store.path(engine), options=json.loads(engine.options)
    )


def why_unavailable(engine: Artifact, connection: Connection) -> str:
    """Ask the machine why it cannot run this engine; empty if it can."""
    with connection.worker() as worker:
        return str(worker.ask("why_unavailable", engine.path, engine=engine.engine)["why"])


def overlap(calibration: ImageSource | None, check: ImageSource, preprocess: Preprocess | BareInput) -> tuple[str, ...]:
    """Refuse a check set that shares images with the calibration set.

    Args:
        calibration: The calibration set; None where there is none.
        check: The check set.
        preprocess: How both become the input.

    Returns:
        What else is to be known of the two: images that look alike, classes that only one has.

    Raises:
        InputError: They share at least one image, by sha256.
    """
    if calibration is None or calibration.is_noise or check.is_noise:
        return ()
    seen = calibration.open(preprocess)
    return calibration_checks.require(seen, calibration_checks.compare(seen, check.open(preprocess)))


def _compare(
    engine: Artifact,
    reference: ReferenceLogits,
    limits: Limits,
    image_set: ImageSet,
    context: Context,
    *,
    every: bool,
) -> ParityReport:
    if image_set.n != reference.n:
        raise CheckError(f"{reference.images}: {image_set.n} images, the reference logits are of {reference.n}")
    if reference.task:
        return _compare_task(engine, reference, limits, image_set, context)
    with np.load(context.store.root / reference.path, allow_pickle=False) as data:
        wanted = data["logits"]
        labels = data["labels"] if reference.labelled else None

    runs = list[EngineOutputs]()

    def compute(at: np.ndarray) -> np.ndarray:
        runs.append(_outputs(engine, image_set.take(at.tolist()), reference, wanted.shape[1], context))
        return np.asarray(np.load(context.store.root / runs[-1].path, allow_pickle=False))

    if every or not _may_sample(engine, limits, labels, image_set.n):
        found, computed = compute(np.arange(image_set.n)), np.ones(image_set.n, bool)
    else:
        found, computed = sampling.sampled_logits(wanted, compute)
    outputs, names = runs[0], image_set.classes
    report = judge(
        engine, reference, wanted, found, labels, limits, computed=computed,
        image=image_set.name_of, class_name=lambda index: names[index] if names else "",
    )  # fmt: skip
    return _completed(report, outputs, engine, image_set)


def _completed(report: ParityReport, outputs: EngineOutputs, engine: Artifact, image_set: ImageSet) -> ParityReport:
    unasked = (_NOTHING_ASKED.format(engine.precision),) if report.limits == Limits() else ()
    sampled = (report.sample.words,) if report.sample else ()
    found = check_sets.copies(image_set)
    return dataclasses.replace(
        report,
        settings=outputs.settings,
        consistency=outputs.consistency,
        remarks=(*report.remarks, *unasked, *sampled, *found.remarks, *found.doubts),
        doubts=(*report.doubts, *found.doubts),
    )


def _compare_task(
    engine: Artifact, reference: ReferenceLogits, limits: Limits, image_set: ImageSet, context: Context
) -> ParityReport:
    """Compare in a task whose outputs are streamed; the counts of each image are kept, so that limits run nothing."""
    case = task_comparison.case_of(context.store.root, reference, image_set, engine.preprocess)
    n_bytes = 4 * math.prod(case.settings.shape)

    def counted(each: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for index, output in enumerate(each):
            yield output
            context.report("check", engine.label, done=index + 1, total=image_set.n)

    def look(opened: inference.LoadedEngine, folder: Path) -> Path:
        each = opened.each(image_set, engine.preprocess, n_bytes)
        arrays = task_comparison.compare_outputs(counted(each), case, engine.label)
        np.savez(folder / "counts.npz", **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
        return folder / "counts.npz"

    inputs, room = (reference.sha256, image_set.digest), max(2, min(consistency.SAMPLE, _SAMPLE_BYTES // n_bytes))
    outputs = _kept(engine, context, image_set, look, room, stage="counts", key=(inputs, reference.path))
    with np.load(context.store.root / outputs.path, allow_pickle=False) as data:
        arrays = dict(data)
    return _completed(judge_task(engine, reference, case, arrays, limits), outputs, engine, image_set)


def judge_task(
    engine: Artifact,
    reference: ReferenceLogits,
    case: task_comparison.TaskCase,
    arrays: dict[str, np.ndarray],
    limits: Limits,
) -> ParityReport:
    """Score the counts of each image and put the limits beside the numbers.

    Args:
        engine: The engine that computed the outputs.
        reference: Record of the checkpoint's outputs.
        case: Task, images and labels.
        arrays: What `task_comparison.compare_outputs` counted.
        limits: Limits for the engine's precision.
    """
    scoring, names = case.scoring, reference.classes
    drop = task_comparison.drop_of(arrays, scoring, limits.max_drop) if case.labelled else None
    found = TaskScores(
        task=reference.task,
        source=reference.task_from,
        agreement_name=scoring.agreement_name,
        measure=scoring.measure,
        pictures=masks.pictures(arrays, case.images.name_of) if "maps" in arrays else (),
        texts=_strings(arrays, case.images.name_of) if "texts" in arrays else (),
    )
    remarks = [f"task {reference.task} ({reference.task_from})", scoring.note(case.settings)]
    if case.labelled:
        before, after = arrays["before"].sum(axis=0), arrays["after"].sum(axis=0)
        found = dataclasses.replace(
            found,
            reference=float(scoring.score(before)),
            found=float(scoring.score(after)),
            more=tuple((name, value, scoring.more(after)[name]) for name, value in scoring.more(before).items()),
            classes=_class_scores(scoring, before, after, names),
        )
        remarks.append(_how_masks_fit(case) if scoring.labels == "masks" else "")
    measured, errors = task_comparison.tensor_measures(arrays), arrays["error"]
    worst = np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:_WORST]
    return ParityReport(
        artifact=engine.sha256,
        label=engine.label,
        n=len(errors),
        images=reference.images,
        agreement=float(arrays["alike"].sum() / arrays["of"].sum()),
        top1_reference=None,
        top1=None,
        drop_pp=None if drop is None else drop.points,
        drop_pp_interval=None if drop is None else (drop.high - drop.low) / 2,
        worst_images=tuple(int(index) for index in worst),
        worst_names=tuple(case.images.name_of(int(index)) for index in worst),
        limits=limits,
        drop=drop,
        remarks=tuple(filter(None, remarks)),
        task=found,
        sqnr_db=measured.sqnr_db,
        cosine=measured.cosine,
        max_error=measured.max_error,
    )


def _strings(arrays: dict[str, np.ndarray], name: Callable[[int], str]) -> tuple[TextDifference, ...]:
    return tuple(
        TextDifference(image=int(at), name=name(int(at)), reference=str(before), found=str(after), label=str(label))
        for at, (before, after, label) in zip(arrays["places"], arrays["texts"], strict=True)
    )


def _class_scores(
    scoring: Scoring, before: np.ndarray, after: np.ndarray, names: tuple[str, ...]
) -> tuple[ClassScore, ...]:
    if scoring.by_class is None:
        return ()
    (old, n), (new, _) = scoring.by_class(before), scoring.by_class(after)
    return tuple(
        ClassScore(
            index=int(k),
            name=names[k] if k < len(names) else "",
            n=int(n[k]),
            reference=float(old[k]),
            found=float(new[k]),
        )
        for k in np.flatnonzero(n)
    )


def _how_masks_fit(case: task_comparison.TaskCase) -> str:
    """Say what became of masks: they are never interpolated."""
    preprocess, sides = case.preprocess, case.settings.shape[1:]
    if not isinstance(preprocess, Preprocess):
        return ""
    said = "masks are resized and cut as their images are, by nearest neighbour" if preprocess.resize else ""
    if sides == (preprocess.height, preprocess.width):
        return said
    size = "×".join(map(str, sides))
    return "; ".join(filter(None, (said, f"masks are sampled at the centers of the output's {size} pixels")))


def _may_sample(engine: Artifact, limits: Limits, labels: np.ndarray | None, n: int) -> bool:
    """Return whether rounding bounds what is asked: of a file made elsewhere nothing says that it is the same function.

    Rankings (AUROC) and bins of confidence change with any rounding, not only where a class does.
    """
    classes_only = (labels is None or labels.ndim == 1) and limits.max_ece_shift is None
    return n >= sampling.LEAST and engine.stage == "build" and engine.precision == "fp32" and classes_only


def _outputs(
    engine: Artifact, image_set: ImageSet, reference: ReferenceLogits, classes: int, context: Context
) -> EngineOutputs:
    """Run a set of images through an engine; kept by its pixels, so that other limits and labels run nothing again."""

    def look(opened: inference.LoadedEngine, folder: Path) -> Path:
        logits = _all_logits(opened, engine, image_set, reference.crops, context)
        if logits.shape != (image_set.n, classes):
            raise CheckError(f"{engine.label}: expected logits {(image_set.n, classes)}, found {logits.shape}")
        write_npy(folder / "outputs.npy", logits)
        return folder / "outputs.npy"

    key = (image_set.pixel_digest,), reference.crops
    return _kept(engine, context, image_set, look, consistency.SAMPLE, stage="outputs", key=key)


def _kept(
    engine: Artifact,
    context: Context,
    images: ImageSet,
    look: Callable[[inference.LoadedEngine, Path], Path],
    room: int,
    *,
    stage: str,
    key: tuple[tuple[str, ...], object],
) -> EngineOutputs:
    """Run an engine; keep the file that `look` makes of its outputs, and whether `room` images give the same again.

    `key` says what decides the file beside the engine: hashes, and an option.
    """

    def make(folder: Path, home: str) -> EngineOutputs:
        with inference.loaded_engine(context.connection, _target_of(engine, context), ask_first=True) as opened:
            file, sample = look(opened, folder), next(images.first(room).batches(engine.preprocess, room))
            itself = consistency.examine_consistency(
                opened.ask, sample, opened.batch, engine.precision, copies=min(consistency.COPIES, 2 * room)
            )
        digest = sha256_of(file)
        return EngineOutputs(
            path=f"{home}/{file.name}", sha256=digest, n=images.n, settings=opened.settings, consistency=itself
        )

    return context.produce(
        EngineOutputs,
        make,
        stage=stage,
        name=f"{engine.name}.{engine.engine}",
        inputs=(engine.sha256, *key[0]),
        options=[engine.options, engine.engine, engine.preprocess, key[1]],
        versions=_versions(context),
    )[0]


def _all_logits(
    opened: inference.LoadedEngine, engine: Artifact, images: ImageSet, crops: Crops, context: Context
) -> np.ndarray:
    """Run a set of images, part by part on the context's workers where the engine runs on this machine's processor."""

    def progress(done: int) -> None:
        context.report("check", engine.label, done=done, total=images.n)

    device, here = context.connection.device, context.connection.environment
    elsewhere = context.workers is not ONE_PROCESS and device == links.LOCAL and images.n > engine_parts.SIZE
    if not elsewhere:
        return opened.all(images, engine.preprocess, crops=crops, progress=progress).logits
    parts = engine_parts.requests(
        _target_of(engine, context), images, engine.preprocess, label=engine.label, batch=opened.batch, crops=crops,
        processor=(here.cpu, here.isa), settings=opened.settings,
    )  # fmt: skip
    found, done = list[np.ndarray](), 0
    for logits in context.workers.map(engine_parts.answer, parts):
        found.append(logits)
        done += len(logits)
        progress(done)
    return np.concatenate(found)


def _versions(context: Context) -> tuple[tuple[str, str], ...]:
    there = context.connection.environment
    return (("stage", VERSION), ("cpu", there.cpu), ("isa", " ".join(there.isa)), *there.versions)


def judge(
    engine: Artifact,
    reference: ReferenceLogits,
    wanted: np.ndarray,
    found: np.ndarray,
    labels: np.ndarray | None,
    limits: Limits,
    *,
    computed: np.ndarray | None = None,
    image: Callable[[int], str] = "image {}".format,
    class_name: Callable[[int], str] = lambda index: "",
) -> ParityReport:
    """Measure two sets of logits (n, classes) against each other and put the limits beside the numbers.

    Args:
        engine: The engine that computed the logits.
        reference: Record of the reference logits.
        wanted: (n, classes) float32 logits of the checkpoint.
        found: (n, classes) float32 logits of the engine, same images, same order.
        labels: (n,) class numbers, or (n, classes) of 0 and 1; None without labels.
        limits: Limits for the engine's precision.
        computed: (n,) bool: the images that the engine computed; by default all.
        image: Index → name of that image in the set.
        class_name: Index → name of that class; empty where it has none.
    """
    seen = np.arange(len(wanted)) if computed is None else np.flatnonzero(computed)
    rest = np.delete(flips.top1_margins(wanted), seen)
    errors = metrics.largest_errors(wanted[seen], found[seen])
    worst = seen[np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:_WORST]]
    several = labels is not None and labels.ndim == 2
    return ParityReport(
        artifact=engine.sha256,
        label=engine.label,
        n=len(wanted),
        images=reference.images,
        sqnr_db=metrics.sqnr_db(wanted[seen], found[seen]),
        cosine=metrics.cosine_similarity(wanted[seen], found[seen]),
        max_error=float(errors.max()),
        agreement=metrics.top1_agreement(wanted, found),
        worst_images=tuple(int(index) for index in worst),
        worst_names=tuple(image(int(index)) for index in worst),
        limits=limits,
        flips=None if several or wanted.shape[1] < 2 else flips.find_flips(wanted, found, image, labels),
        sample=Sample(n=len(seen), deviation=float(errors.max()), margin=float(rest.min())) if len(rest) else None,
        **_labelled(wanted, found, labels, limits, class_name),
    )


def _labelled(
    wanted: np.ndarray, found: np.ndarray, labels: np.ndarray | None, limits: Limits, class_name: Callable[[int], str]
) -> dict[str, Any]:
    """Return the fields of the report that need labels."""
    if labels is None:
        return dict.fromkeys(("top1_reference", "top1", "drop_pp", "drop_pp_interval"))
    table = scores.score_outputs(wanted, found, labels, class_name)
    remarks = [_PROBABILITIES.format(table.outputs)] if table.outputs != "logits" else []
    doubts: tuple[str, ...] = ()
    top1 = top1_reference = None
    if labels.ndim == 2:
        drop = auroc.auroc_drop(wanted, found, labels, limits.max_drop)
    else:
        before, after = metrics.top1_hits(wanted, labels), metrics.top1_hits(found, labels)
        top1_reference, top1 = float(before.mean()), float(after.mean())
        drop = paired.top1_drop(before, after, limits.max_drop)
        doubts = single.describe_mistaken_labels(wanted, labels, class_name)
        doubts += single.describe_permuted_labels(wanted, labels, class_name)
        doubts += single.describe_guessing(before, wanted.shape[1])
    return {
        "top1_reference": top1_reference,
        "top1": top1,
        "drop_pp": drop.points,
        "drop_pp_interval": (drop.high - drop.low) / 2,
        "drop": drop,
        "scores": table,
        "remarks": (*remarks, *doubts),
        "doubts": doubts,
    }
