"""Why a checkpoint scores low on labelled images: its float graph under other ways to prepare them.

Tensors that agree prove the graph, not what is fed to it. Ways are held against the present one on the same images, so
that noise is no find.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from deploy_kit.accuracy import metrics, paired, preprocess_variants, tasks
from deploy_kit.accuracy.preprocess_variants import PreprocessVariant
from deploy_kit.accuracy.scores import classification as single
from deploy_kit.accuracy.scores import confidence
from deploy_kit.base.errors import CheckError, InputError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.graph import onnx_file, pixel_input
from deploy_kit.images import ImageSet, ImageSource
from deploy_kit.recipe import LimitsTable
from deploy_kit.records.artifacts import Artifact, Preprocess, ReferenceLogits
from deploy_kit.records.parity import Attempt, Diagnosis, low_score

VERSION = "2"
_MOST = 512
_SIGNIFICANT, _ALIKE, _NAMED = 0.01, 0.05, 3
_PREPROCESS = "export the checkpoint again with --input, --mean and --std"
_LABELS = "give a folder with one sub-folder a class, or an npz with 'labels'"


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
        InputError: The images have no labels, or several each, or how they become the input is not known.
        CheckError: The images changed since the reference logits were computed.
    """
    preprocess = graph.preprocess
    if not isinstance(preprocess, Preprocess):
        raise InputError(
            f"{reference.images}: how images become the input of this model is not known", hint=_PREPROCESS
        )
    expect_labels(reference)

    def make(folder: object, home: str) -> Diagnosis:
        with np.load(context.store.root / reference.path, allow_pickle=False) as data:
            values, labels = data["logits"], data["labels"]
        image_set = images.open(preprocess)
        if image_set.n != reference.n:
            raise CheckError(f"{reference.images}: {image_set.n} images, the reference logits are of {reference.n}")
        chosen = spread(labels, _MOST)
        hits = _hits(graph, _taken(image_set, chosen), context)
        return judge(graph, reference, hits, values, labels)

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
        InputError: Its images have no labels, or several each, or the outputs are of another task.
    """
    tasks.expect_rows(reference.task, reference.images, "the diagnosis of a low score")
    if not reference.labelled:
        raise InputError(f"{reference.images}: expected labelled images to diagnose with, found none", hint=_LABELS)
    if reference.top1 is None:
        raise InputError(f"{reference.images}: expected one label an image to diagnose with, found several")


def spread(labels: np.ndarray, most: int) -> np.ndarray:
    """Choose at most `most` images, as many of each class as there are, in the set's order: (n,) → indices."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        # Evenly over the class: the first of a folder are often alike.
        turn[np.random.default_rng(0).permutation(mine)] = np.arange(len(mine))
    return np.sort(np.argsort(turn, kind="stable")[:most])


def judge(
    graph: Artifact,
    reference: ReferenceLogits,
    hits: list[tuple[PreprocessVariant, np.ndarray]],
    values: np.ndarray,
    labels: np.ndarray,
) -> Diagnosis:
    """Return which way is better than the present one beyond noise.

    Args:
        graph: What was run.
        reference: On which set.
        hits: Each way that was tried with (n,) bool; the present one first, then those that change less before more.
        values: (N, K) the checkpoint's own outputs on the whole set.
        labels: (N,).
    """
    (_, now), others = hits[0], hits[1:]
    attempts = [_attempt(way, now, found, len(others)) for way, found in others]
    blind = np.bincount(labels).max() / len(labels)  # always naming the commonest class is no find
    finds = _alike([i for i, tried in enumerate(attempts) if _better(tried, blind)], [found for _, found in others])
    exchanged = single.describe_permuted_labels(values, labels, lambda index: "")
    # Colors that are exchanged can look like classes that are: where both explain as much, the images are at fault.
    if exchanged and finds and attempts[finds[0]].high < single.relabelled_top1(values, labels):
        finds = []
    if finds:
        words: tuple[str, ...] = (_restored(float(now.mean()), [attempts[i] for i in finds]),)
    else:
        words = exchanged or (_nothing(float(now.mean()), len(attempts)),)
    return Diagnosis(
        graph=graph.sha256,
        images=reference.images,
        n=len(now),
        top1=float(now.mean()),
        attempts=tuple(sorted(attempts, key=lambda attempt: -attempt.top1)),
        words=(*words, *_softmaxes(values, labels)),
        found=attempts[finds[0]].name if finds else "",
    )


def _better(tried: Attempt, blind: float) -> bool:
    return tried.won > tried.lost and tried.p < _SIGNIFICANT and tried.low > blind


def _nothing(now: float, n_attempts: int) -> str:
    return f"top-1 {_percent(now)}: none of {n_attempts} other ways to prepare the images is better beyond noise"


def _attempt(way: PreprocessVariant, now: np.ndarray, found: np.ndarray, n_attempts: int) -> Attempt:
    lost, won = paired.discordant_counts(now, found)
    low, high = paired.wilson_interval(int(found.sum()), len(found))
    p = min(1.0, n_attempts * paired.mcnemar_p(lost, won))
    return Attempt(name=way.name, cure=way.cure, top1=float(found.mean()), low=low, high=high, won=won, lost=lost, p=p)


def _alike(better: list[int], hits: list[np.ndarray]) -> list[int]:
    """Return the better ways that noise cannot tell from the best, the least change first."""
    if not better:
        return []
    best = max(better, key=lambda i: int(hits[i].sum()))
    return [i for i in better if paired.mcnemar_p(*paired.discordant_counts(hits[best], hits[i])) > _ALIKE]


def _restored(now: float, alike: list[Attempt]) -> str:
    first, rest = alike[0], [attempt.name for attempt in alike[1 : 1 + _NAMED]]
    verb = "restores" if 1 - first.top1 <= (1 - now) / 2 else "raises"
    also = f" (as good within noise: {'; '.join(rest)})" if rest else ""
    return f"{first.name} {verb} it: {_percent(now)} → {_percent(first.top1)}{also}; {first.cure}"


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


def _hits(graph: Artifact, image_set: ImageSet, context: Context) -> list[tuple[PreprocessVariant, np.ndarray]]:
    preprocess, labels, path = graph.preprocess, image_set.labels, context.store.path(graph)
    assert isinstance(preprocess, Preprocess)
    assert labels is not None
    if preprocess.input_pixels:  # another normalization than the one inside takes a graph without it
        model, path = onnx_file.load(path), context.connection.folder / "diagnosed.onnx"
        pixel_input.with_float_input(model, preprocess)
        onnx_file.save(model, path)
    tried = []
    every = preprocess_variants.variants_of(preprocess, image_set.load(0).shape)
    with inference.loaded_engine(
        context.connection,
        inference.InferenceTarget(engine="onnxruntime", path=path, options={}),
    ) as engine:
        for done, way in enumerate(every):
            context.report("diagnose", way.name, done=done, total=len(every))
            prepared = dataclasses.replace(image_set, load=way.pixels(image_set.load))
            tried.append((way, metrics.top1_hits(engine.all(prepared, way.preprocess.normalized).logits, labels)))
    return tried


def _taken(image_set: ImageSet, chosen: np.ndarray) -> ImageSet:
    assert image_set.labels is not None
    return dataclasses.replace(
        image_set,
        n=len(chosen),
        labels=image_set.labels[chosen],
        hashes=tuple(image_set.hashes[i] for i in chosen),
        load=lambda index: image_set.load(int(chosen[index])),
    )
