"""A class for each pixel or voxel: maps N×K×H×W or N×K×D×H×W, or N×1×… of one class against the background.

Scored by mIoU: intersections and unions are summed over all images before they are divided, and the mean is over the
classes that the labels have (torchmetrics' ``JaccardIndex`` with ``average="macro"`` over present classes).
"""

import math

import numpy as np

from deploy_kit.accuracy.tasks import Scoring, Task, TaskSettings

UNDECIDED = -1
"""Class of a pixel of which a number is not finite: it agrees with nothing."""


def n_classes(shape: tuple[int, ...]) -> int:
    """Return the number of classes of a map (K, …): one channel tells two apart."""
    return max(shape[0], 2)


def class_map(output: np.ndarray, index: int, settings: TaskSettings) -> np.ndarray:
    """Decide the class of each pixel.

    Args:
        output: (K, …) logits or probabilities of one image.
        index: Its index in the set.
        settings: Whether one channel is compared with 0.5 (probabilities) or with 0 (logits).

    Returns:
        (…) int16 classes; `UNDECIDED` where a number is not finite.
    """
    if len(output) == 1:
        decided = np.asarray(output[0] > (0.5 if settings.probabilities else 0.0), np.int16)
    else:
        decided = np.asarray(output.argmax(axis=0), np.int16)
    if not math.isfinite(float(output.sum(dtype=np.float64))):
        decided[~np.isfinite(output).all(axis=0)] = UNDECIDED
    return decided


def pixels_alike(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Count the pixels of which both have the same class."""
    return float(((reference == found) & (found != UNDECIDED)).sum()), float(found.size)


def overlaps(decided: np.ndarray, label: np.ndarray, settings: TaskSettings) -> np.ndarray:
    """Count pixels by class: intersection with the label, answer and label; (3 K,) float64."""
    k = n_classes(settings.shape)
    judged = np.ones(label.shape, bool) if settings.ignore_index is None else label != settings.ignore_index
    answer, truth = decided[judged], label[judged]
    counts = (truth[answer == truth], answer[answer != UNDECIDED], truth)
    return np.concatenate([np.bincount(values, minlength=k) for values in counts]).astype(np.float64)


def mean_iou(sums: np.ndarray) -> np.ndarray:
    """Compute mIoU of sums (…, 3 K) → (…,); NaN where no label has a class."""
    both, answer, truth = np.split(sums, 3, axis=-1)
    there = truth > 0
    iou = np.divide(both, answer + truth - both, out=np.zeros_like(both), where=there)
    n = there.sum(axis=-1)
    return np.asarray(np.divide(iou.sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0))


def iou_by_class(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the IoU of each class of sums (3 K,), and how many labelled pixels it has."""
    both, answer, truth = np.split(sums, 3)
    return np.divide(both, answer + truth - both, out=np.full(len(both), np.nan), where=truth > 0), truth


def more_scores(sums: np.ndarray) -> dict[str, float]:
    """Compute mean Dice over the labels' classes, and the share of labelled pixels that are right."""
    both, answer, truth = np.split(sums, 3)
    there = truth > 0
    dice = 2 * both[there] / (answer + truth)[there]
    return {"mean Dice": float(dice.mean()), "pixel accuracy": float(both.sum() / truth.sum())} if there.any() else {}


def commonest_alone(sums: np.ndarray) -> float:
    """Compute the mIoU of always answering the commonest class: its share of the pixels, over the number of classes."""
    truth = np.split(sums, 3)[2]
    n = int((truth > 0).sum())
    return float(truth.max() / truth.sum() / n) if n else 0.0


def _note(settings: TaskSettings) -> str:
    if settings.shape[0] > 1:
        return ""
    kind, at = ("probabilities (all lie in 0..1)", 0.5) if settings.probabilities else ("logits", 0)
    return f"one channel: its values are taken for {kind}, and a pixel above {at:g} is of class 1"


TASK = Task(
    takes="N×K×H×W or N×K×D×H×W",
    fits=lambda shape: len(shape) in (3, 4),
    inferred=True,
    scoring=Scoring(
        answer=class_map,
        agreement=pixels_alike,
        agreement_name="pixel agreement",
        labels="masks",
        counts=overlaps,
        score=mean_iou,
        measure="mIoU",
        by_class=iou_by_class,
        more=more_scores,
        blind=commonest_alone,
        note=_note,
    ),
)
