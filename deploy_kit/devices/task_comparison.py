"""Outputs of an engine against the checkpoint's in a task: counts of each image are kept, outputs are not.

A map of 512×512 with 21 classes is 22 MB in float32. One such map of each side is in memory at a time; the checkpoint's
are mapped from their file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.accuracy import jackknife, metrics
from deploy_kit.accuracy.tasks import Scoring, TaskSettings, scoring_of
from deploy_kit.accuracy.tasks.segment import n_classes
from deploy_kit.accuracy.tasks.sequence import edit_distance
from deploy_kit.base.errors import CheckError, InputError, nearest
from deploy_kit.images import ImageSet, truth
from deploy_kit.records.artifacts import BareInput, Preprocess, ReferenceLogits
from deploy_kit.records.parity import Drop

_SHOWN = 4  # images of which both answers are kept


@dataclass(frozen=True, kw_only=True)
class TaskCase:
    """What engines are compared on.

    Attributes:
        scoring: How answers are scored.
        settings: What the task must know of the whole set; `TaskSettings.gallery` are the checkpoint's outputs.
        images: The images.
        preprocess: How they become the input.
        labelled: Whether they have labels that the task takes.
    """

    scoring: Scoring
    settings: TaskSettings
    images: ImageSet
    preprocess: Preprocess | BareInput
    labelled: bool

    def label(self, index: int) -> Any:
        """Return the label of one image as the task takes it.

        Raises:
            InputError: It does not fit the image or the output.
        """
        images, settings = self.images, self.settings
        if self.scoring.labels == "classes":
            assert images.labels is not None
            own = images.labels
            return lambda found: found >= 0 and own[found] == own[index]
        assert images.truth is not None
        if self.scoring.labels == "masks":
            assert isinstance(self.preprocess, Preprocess)
            return truth.mask_of(
                images,
                index,
                self.preprocess,
                settings.shape[1:],
                n_classes=n_classes(settings.shape),
                ignore_index=settings.ignore_index,
            )
        label, name = images.truth.load(index), images.truth.names[index]
        if self.scoring.labels == "texts":
            return _symbols(label, name, settings)
        if label.shape != settings.shape:
            raise InputError(f"{name}: expected numbers {settings.shape}, found {label.shape}")
        return label


def case_of(root: Path, reference: ReferenceLogits, images: ImageSet, preprocess: Preprocess | BareInput) -> TaskCase:
    """Return what engines are compared on: outputs that the store has, and labels of the images."""
    gallery = np.load(root / reference.path, mmap_mode="r", allow_pickle=False)
    settings = TaskSettings(
        shape=gallery.shape[1:],
        probabilities=reference.probabilities,
        ignore_index=reference.ignore_index,
        gallery=gallery,
        classes=reference.classes,
    )
    return TaskCase(
        scoring=scoring_of(reference.task),
        settings=settings,
        images=images,
        preprocess=preprocess,
        labelled=reference.labelled,
    )


def first_of(case: TaskCase, n: int) -> TaskCase:
    """Return the first n images of a case, or all where there are fewer."""
    gallery = case.settings.gallery
    assert gallery is not None
    return replace(case, images=case.images.first(n), settings=replace(case.settings, gallery=gallery[:n]))


def takes_labels(scoring: Scoring, images: ImageSet) -> bool:
    """Return whether a set has labels that a task takes.

    Raises:
        InputError: It has labels that are of another task.
    """
    if scoring.labels == "classes":
        return images.labels is not None and not images.multilabel
    if images.truth is not None and images.truth.kind != scoring.labels:
        raise InputError(
            f"{images.name}: expected {scoring.labels} as labels, found {images.truth.kind}",
            hint="state the task that they belong to: --task",
        )
    return images.truth is not None


def compare_outputs(outputs: Iterable[np.ndarray], case: TaskCase, label: str) -> dict[str, np.ndarray]:
    """Compare an engine's outputs with the checkpoint's.

    Args:
        outputs: Output of each image, in order.
        case: What they are compared with.
        label: Name of the engine in a message.

    Returns:
        Of each image: ``signal`` Σr², ``noise`` Σ(r - c)², ``dot`` Σrc, ``square`` Σc², the largest ``error``; how much
        of the answers agree (``alike``), and of how much (``of``); with labels the checkpoint's counts (``before``)
        and the engine's (``after``), (n, M) each. Of the images whose answers differ most ``places`` are indices; where
        answers are maps, ``maps`` (k, 2, H, W) both, of volumes the slice that differs most, and ``slices`` (k, 2)
        which and of how many, 0 of an image; where they are strings, ``texts`` (k, 3) both and the label, or nothing.

    Raises:
        CheckError: An output of another shape, or of other images than the reference.
        InputError: A label does not fit.
    """
    scoring, settings = case.scoring, case.settings
    assert settings.gallery is not None
    rows, counted, worst = list[tuple[float, ...]](), list[np.ndarray](), list[_Shown]()
    for index, found in enumerate(outputs):
        if found.shape != settings.shape or index >= len(settings.gallery):
            raise CheckError(f"{label}: expected outputs {settings.gallery.shape}, found {found.shape} for one image")
        wanted = np.asarray(settings.gallery[index])
        answers = [scoring.answer(output, index, settings) for output in (wanted, found)]
        alike, of = scoring.agreement(*answers)
        rows.append((*_distances(wanted, found), alike, of))
        true = case.label(index) if case.labelled else None
        if case.labelled:
            counted.append(np.stack([scoring.counts(answer, true, settings) for answer in answers]))
        if alike < of and (shown := _shown(index, answers, true, settings)) is not None:
            worst = sorted([*worst, shown], key=lambda one: (one.alike, one.index))[:_SHOWN]
    if len(rows) != len(settings.gallery):
        raise CheckError(f"{label}: outputs of {len(rows)} images, the reference's are of {len(settings.gallery)}")
    names = ("signal", "noise", "dot", "square", "error", "alike", "of")
    arrays = dict(zip(names, np.array(rows, np.float64).T, strict=True))
    if counted:
        arrays["before"], arrays["after"] = np.stack(counted, axis=1)
    if worst:
        arrays["places"] = np.array([one.index for one in worst])
        arrays |= {name: np.stack([one.arrays[name] for one in worst]) for name in worst[0].arrays}
    return arrays


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """Both answers of an image that differ, and how much of them is alike, in 0..1."""

    index: int
    alike: float
    arrays: dict[str, np.ndarray]


def _shown(index: int, answers: list[Any], label: Any, settings: TaskSettings) -> _Shown | None:
    """Return what a reader can compare: maps and strings; None for other answers."""
    before, after = answers
    if isinstance(before, tuple):
        texts = np.array([_text(one, settings) for one in (before, after, label or ())])
        apart = edit_distance(before, after) / max(len(before), len(after))
        return _Shown(index=index, alike=1 - apart, arrays={"texts": texts})
    if not isinstance(before, np.ndarray) or before.ndim not in (2, 3):
        return None
    same, number = before == after, (0, 0)
    alike = float(same.mean())
    if before.ndim == 3:
        at = int(same.mean(axis=(1, 2)).argmin())
        before, after, number = before[at], after[at], (at + 1, len(before))
    return _Shown(index=index, alike=alike, arrays={"maps": np.stack([before, after]), "slices": np.array(number)})


def _text(symbols: tuple[int, ...], settings: TaskSettings) -> str:
    """Write a string as its label is written: characters that are class names, or numbers with spaces between them."""
    names = [settings.classes[k] if k < len(settings.classes) else str(k) for k in symbols]
    return ("" if all(len(name) == 1 for name in settings.classes) and settings.classes else " ").join(names)


def drop_of(arrays: dict[str, np.ndarray], scoring: Scoring, limit: float | None = None) -> Drop:
    """Return the drop of the task's score; without labels, how much less than all of the answers agrees."""
    if "before" in arrays:
        return jackknife.paired_drop(arrays["before"], arrays["after"], scoring.score, scoring.measure, limit)
    of, alike = arrays["of"], arrays["alike"]
    whole, part = np.stack([of, of], axis=1), np.stack([alike, of], axis=1)
    return jackknife.paired_drop(
        whole, part, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]), scoring.agreement_name, limit
    )


def _distances(wanted: np.ndarray, found: np.ndarray) -> tuple[float, ...]:
    r, c = wanted.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    apart = np.abs(r - c)
    return float(r @ r), float(apart @ apart), float(r @ c), float(c @ c), float(apart.max(initial=0))


def _symbols(text: str, name: str, settings: TaskSettings) -> tuple[int, ...]:
    """Turn a label into class numbers: whole numbers with spaces between them, or characters that are class names."""
    parts = text.split()
    if parts and all(part.isdecimal() for part in parts) and not settings.classes:
        found = [int(part) for part in parts]
    else:
        odd = next((character for character in text if character not in settings.classes), None)
        if odd is not None:
            raise InputError(
                f"{name}: '{odd}' is the name of no class of the model",
                hint=nearest(odd, settings.classes) or "write class numbers with spaces between them: '3 1 4'",
            )
        found = [settings.classes.index(character) for character in text]
    last = settings.shape[1] - 1
    if any(not 1 <= symbol <= last for symbol in found):
        raise InputError(f"{name}: '{text}' has symbols outside of 1 to {last}; 0 is CTC's blank")
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class TensorMeasures:
    """Distances between all outputs of two networks, as `accuracy.metrics` defines them."""

    sqnr_db: float
    cosine: float
    max_error: float


def tensor_measures(arrays: dict[str, np.ndarray]) -> TensorMeasures:
    """Return the distances of sums over images."""
    sums = {name: float(arrays[name].sum()) for name in ("signal", "noise", "dot", "square")}
    length = (sums["signal"] * sums["square"]) ** 0.5
    return TensorMeasures(
        sqnr_db=metrics.sqnr_of_sums(sums["signal"], sums["noise"]),
        cosine=sums["dot"] / length if length else 0.0,
        max_error=float(arrays["error"].max()),
    )
