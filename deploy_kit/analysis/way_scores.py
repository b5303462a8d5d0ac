"""How a network scores on images prepared in one way: the whole set by the measure of its task, each image by its own.

Of two ways on the same images the scores of each image tell which is better, by signs alone: that needs no distribution
of a measure that is a function of sums.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from deploy_kit.accuracy import jackknife, metrics, paired
from deploy_kit.accuracy.scores import auroc
from deploy_kit.accuracy.tasks import Scoring
from deploy_kit.devices.task_comparison import TaskCase

_CHANCE = 0.5  # AUROC of outputs that do not look at the image


@dataclass(frozen=True, kw_only=True)
class WayScore:
    """The score of one way.

    Attributes:
        score: Score of the whole set, 1 for the best.
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
        each: (n,) float64 score of each image; NaN of one that has none.
        blind: Score of the best answer that is the same for all images, as far as labels tell it.
    """

    score: float
    low: float
    high: float
    each: np.ndarray
    blind: float

    def against(self, other: "WayScore") -> tuple[int, int]:
        """Count the images that the other way alone scores higher, and those that this one does: (lost, won)."""
        return int((other.each > self.each).sum()), int((self.each > other.each).sum())


def of_classes(values: np.ndarray, labels: np.ndarray) -> WayScore:
    """Score outputs (n, K) by top-1 of labels (n,), with Wilson's interval."""
    hits = metrics.top1_hits(values, labels)
    low, high = paired.wilson_interval(int(hits.sum()), len(hits))
    blind = float(np.bincount(labels).max() / len(labels))  # always naming the commonest class
    return WayScore(score=float(hits.mean()), low=low, high=high, each=hits.astype(np.float64), blind=blind)


def of_several_classes(values: np.ndarray, labels: np.ndarray) -> WayScore:
    """Score outputs (n, K) by mean AUROC of labels (n, K); an image by the AUROC over its own classes."""
    score, low, high = auroc.mean_auroc(values, labels)
    each = auroc.auroc_by_class(values.T, labels.T)
    return WayScore(score=score, low=low, high=high, each=each, blind=_CHANCE)


def of_outputs(outputs: Iterable[np.ndarray], case: TaskCase) -> WayScore:
    """Score the outputs of each image by the counts of their task, with the jackknife's interval.

    Args:
        outputs: Output of each image, in order.
        case: Task and labels. Vectors are looked up among each other, not in its gallery: that was prepared otherwise.
    """
    scoring, settings, found = case.scoring, case.settings, iter(outputs)
    if scoring.labels == "classes":
        vectors = np.stack(list(found))
        settings, found = replace(settings, gallery=vectors), iter(vectors)
    counts = np.stack(
        [
            scoring.counts(scoring.answer(output, index, settings), case.label(index), settings)
            for index, output in enumerate(found)
        ]
    )
    low, high = jackknife.interval(counts, scoring.score)
    total = counts.sum(axis=0)
    return WayScore(
        score=float(scoring.score(total)),
        low=low,
        high=high,
        each=_of_each(counts, scoring),
        blind=scoring.blind(total),
    )


def _of_each(counts: np.ndarray, scoring: Scoring) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # an image whose label is 0, or has no pixel that is judged
        scores = np.asarray(scoring.score(counts), np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)
