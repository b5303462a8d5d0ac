"""Why a checkpoint scores low on labelled images: its float graph under other ways to prepare them.

Tensors that agree prove the graph, not what is fed to it. Ways are held against the present one on the same images, so
that noise is no find.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

import numpy as np

from deploy_kit.accuracy import metrics, paired, preprocess_variants, tasks
from deploy_kit.accuracy.preprocess_variants import PreprocessVariant
from deploy_kit.accuracy.scores import classification as single
from deploy_kit.accuracy.scores import confidence
from deploy_kit.analysis import way_scores
from deploy_kit.analysis.way_scores import WayScore
from deploy_kit.base.errors import CheckError, InputError
from deploy_kit.context import Context
from deploy_kit.devices import inference, task_comparison
from deploy_kit.graph import onnx_file, pixel_input
from deploy_kit.images import ImageSet, ImageSource
from deploy_kit.recipe import LimitsTable
from deploy_kit.records.artifacts import Artifact, Preprocess, ReferenceLogits
from deploy_kit.records.parity import Attempt, Diagnosis, low_score

VERSION = "3"
_MOST, _MOST_STREAMED = 512, 64  # images: an image's map tells more than its class, and takes longer
_SIGNIFICANT, _ALIKE, _NAMED = 0.01, 0.05, 3
_PREPROCESS = "export the checkpoint again with --input, --mean and --std"
_LABELS = "give a folder with one sub-folder a class, or an npz with 'labels'"
_TRUTHS = {
    "masks": "give a folder of masks with --masks, or an npz with 'masks'",
    "texts": "give an npz with 'texts'",
    "numbers": "give an npz with 'targets'",
    "classes": _LABELS,
}
_CLASSES, _SEVERAL = "top-1", "mean AUROC"


def diagnose(
    graph: Artifact, reference: ReferenceLogits, context: Context, *, images: ImageSource
) -> tuple[Diagnosis, bool]:
    """Try other ways to prepare the images of a check set on a float graph.

    Args:
        graph: The checkpoint as ONNX, float32.
        reference: The checkpoint's own logits on the whole set.
        context: Where onnxruntime runs.
        images: The set that the reference logits are of.

    Returns:
        What was tried and found, and whether the store had it.

    Raises:
        InputError: The images have no labels, or how they become the input is not known.
        CheckError: The images changed since the reference logits were computed.
    """
    preprocess = graph.preprocess
    if not isinstance(preprocess, Preprocess):
        raise InputError(
            f"{reference.images}: how images become the input of this model is not known", hint=_PREPROCESS
        )
    expect_labels(reference)

    def make(folder: object, home: str) -> Diagnosis:
        image_set = images.open(preprocess)
        if image_set.n != reference.n:
            raise CheckError(f"{reference.images}: {image_set.n} images, the reference logits are of {reference.n}")
        return _tried(graph, preprocess, reference, image_set, context)

    return context.produce(
        Diagnosis,
        make,
        stage="diagnose",
        name=graph.name,
        inputs=(graph.sha256, reference.sha256),
        options=[preprocess, reference.path],
        versions=(("stage", VERSION), *context.connection.environment.versions),
    )


def low_score_remarks(reference: ReferenceLogits, limits: Iterable[LimitsTable]) -> tuple[str, ...]:
    """Say that the checkpoint itself scores low, which a drop against it does not show; at most one sentence.

    Args:
        reference: Outputs of the checkpoint.
        limits: Limits of all precisions: a score that reaches the top-1 that they ask for is not low.
    """
    asked = [table.min_top1 for table in limits if table.min_top1 is not None]
    said = low_score(reference.top1, max(asked, default=None))
    if not said:
        return ()
    return (
        f"{said}: if it was trained to more, it was given another preprocessing or other labels (deploykit check "
        "--diagnose tries the usual ones); if no more is expected: --min-top1",
    )


def expect_labels(reference: ReferenceLogits) -> None:
    """Refuse a check set that says nothing about the preprocessing.

    Raises:
        InputError: Its images have no labels.
    """
    if not reference.labelled:
        cure = _TRUTHS[tasks.scoring_of(reference.task).labels] if reference.task else _LABELS
        raise InputError(f"{reference.images}: expected labelled images to diagnose with, found none", hint=cure)


def spread(labels: np.ndarray, most: int) -> np.ndarray:
    """Choose at most `most` images, as many of each class as there are, in the set's order: (n,) → indices."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        # Evenly over the class: the first of a folder are often alike.
        turn[np.random.default_rng(0).permutation(mine)] = np.arange(len(mine))
    return np.sort(np.argsort(turn, kind="stable")[:most])


def judge(
    graph: Artifact, reference: ReferenceLogits, found: list[tuple[PreprocessVariant, WayScore]], measure: str
) -> Diagnosis:
    """Return which way is better than the present one beyond noise.

    Args:
        graph: What was run.
        reference: On which set.
        found: Each way that was tried; the present one first, then those that change less before more.
        measure: Name of the score.
    """
    (_, now), others = found[0], found[1:]
    attempts = [_attempt(way, now, one, len(others)) for way, one in others]
    finds = _alike([i for i, tried in enumerate(attempts) if _better(tried, now)], [one for _, one in others])
    if finds:
        words: tuple[str, ...] = (_restored(now.score, [attempts[i] for i in finds]),)
    else:
        words = (_nothing(measure, now.score, len(attempts)),)
    return Diagnosis(
        graph=graph.sha256,
        images=reference.images,
        n=len(now.each),
        score=now.score,
        attempts=tuple(sorted(attempts, key=lambda attempt: -attempt.score)),
        words=words,
        found=attempts[finds[0]].name if finds else "",
        measure=measure,
    )


def with_labels_read(found: Diagnosis, values: np.ndarray, labels: np.ndarray) -> Diagnosis:
    """Add what the checkpoint's own outputs say: exchanged labels may explain more than a find, and softmaxes be two.

    Args:
        found: What was tried.
        values: (N, K) outputs on the whole set.
        labels: (N,) class numbers.
    """
    exchanged = single.describe_permuted_labels(values, labels, lambda index: "")
    if exchanged:
        # Colors that are exchanged can look like classes that are: where both explain as much, the images are at fault.
        least = next((tried.high for tried in found.attempts if tried.name == found.found), 0.0)
        if least < single.relabelled_top1(values, labels):
            found = dataclasses.replace(found, found="", words=exchanged)
    return dataclasses.replace(found, words=(*found.words, *_softmaxes(values, labels)))


def _better(tried: Attempt, now: WayScore) -> bool:
    more = tried.score > now.score and tried.won > tried.lost and tried.p < _SIGNIFICANT
    return more and tried.low > now.blind


def _nothing(measure: str, now: float, n_attempts: int) -> str:
    return f"{measure} {_percent(now)}: none of {n_attempts} other ways to prepare the images is better beyond noise"


def _attempt(way: PreprocessVariant, now: WayScore, found: WayScore, n_attempts: int) -> Attempt:
    lost, won = found.against(now)
    p = min(1.0, n_attempts * paired.mcnemar_p(lost, won))
    interval = {"score": found.score, "low": found.low, "high": found.high}
    return Attempt(name=way.name, cure=way.cure, won=won, lost=lost, p=p, **interval)


def _alike(better: list[int], found: list[WayScore]) -> list[int]:
    """Return the better ways that noise cannot tell from the best, the least change first."""
    if not better:
        return []
    best = max(better, key=lambda i: found[i].score)
    return [i for i in better if paired.mcnemar_p(*found[i].against(found[best])) > _ALIKE]


def _restored(now: float, alike: list[Attempt]) -> str:
    first, rest = alike[0], [attempt.name for attempt in alike[1 : 1 + _NAMED]]
    verb = "restores" if 1 - first.score <= (1 - now) / 2 else "raises"
    also = f" (as good within noise: {'; '.join(rest)})" if rest else ""
    return f"{first.name} {verb} it: {_percent(now)} → {_percent(first.score)}{also}; {first.cure}"


def _softmaxes(values: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """State what outputs that are probabilities mean; a softmax of a softmax exceeds e / (e + K - 1) nowhere."""
    if confidence.output_kind(values) != "softmax":
        return ()
    most = math.e / (math.e + values.shape[1] - 1)
    low, _ = paired.wilson_interval(int(metrics.top1_hits(values, labels).sum()), len(labels))
    if values.max() <= most + 1e-6 and low > most:
        return (
            f"the outputs look like a softmax of a softmax: none is above {most:.3f}, though {_percent(low)} of the "
            "images at least are right; leave one out: export again with --head-activation none",
        )
    return ("the outputs are probabilities already: do not put a softmax behind them",)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _tried(
    graph: Artifact, preprocess: Preprocess, reference: ReferenceLogits, images: ImageSet, context: Context
) -> Diagnosis:
    """Run every way on a part of the images, and judge them by the measure of the task."""
    if reference.task:
        images = images.spread(_MOST_STREAMED)
        case = task_comparison.case_of(context.store.root, reference, images, preprocess)
        n_bytes = 4 * math.prod(case.settings.shape)

        def streamed(engine: inference.LoadedEngine, images: ImageSet, preprocess: Preprocess) -> WayScore:
            of_way = dataclasses.replace(case, images=images, preprocess=preprocess)
            return way_scores.of_outputs(engine.each(images, preprocess, n_bytes), of_way)

        masks = case.scoring.labels == "masks"
        found = _of_ways(graph, preprocess, images, context, streamed, squashed=not masks)
        return judge(graph, reference, found, case.scoring.measure)
    with np.load(context.store.root / reference.path, allow_pickle=False) as data:
        values, labels = data["logits"], data["labels"]
    score = way_scores.of_several_classes if images.multilabel else way_scores.of_classes

    def together(engine: inference.LoadedEngine, images: ImageSet, preprocess: Preprocess) -> WayScore:
        assert images.labels is not None
        return score(engine.all(images, preprocess).logits, images.labels)

    chosen = images.spread(_MOST) if images.multilabel else images.take(spread(labels, _MOST).tolist())
    found = _of_ways(graph, preprocess, chosen, context, together)
    if images.multilabel:
        return judge(graph, reference, found, _SEVERAL)
    return with_labels_read(judge(graph, reference, found, _CLASSES), values, labels)


def _of_ways(
    graph: Artifact,
    preprocess: Preprocess,
    images: ImageSet,
    context: Context,
    look: Callable[[inference.LoadedEngine, ImageSet, Preprocess], WayScore],
    *,
    squashed: bool = True,
) -> list[tuple[PreprocessVariant, WayScore]]:
    """Score each way, the present one first; `squashed` where labels stay true of an image whose sides are scaled."""
    path = context.store.path(graph)
    if preprocess.input_pixels:  # another normalization than the one inside takes a graph without it
        model, path = onnx_file.load(path), context.connection.folder / "diagnosed.onnx"
        pixel_input.with_float_input(model, preprocess)
        onnx_file.save(model, path)
    every = preprocess_variants.variants_of(preprocess, images.load(0).shape)
    every = tuple(way for way in every if squashed or way.change != "squashed")
    target, found = inference.InferenceTarget(engine="onnxruntime", path=path, options={}), []
    with inference.loaded_engine(context.connection, target) as engine:
        for done, way in enumerate(every):
            context.report("diagnose", way.name, done=done, total=len(every))
            prepared = dataclasses.replace(images, load=way.pixels(images.load))
            found.append((way, look(engine, prepared, way.preprocess.normalized)))
    return found
