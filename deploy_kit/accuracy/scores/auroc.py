"""Area under the ROC curve by class, and the drop of its mean: the score of images with several labels."""

import math
from collections.abc import Callable

import numpy as np

from deploy_kit.records.parity import ClassScore, Drop

_DRAWS, _AT_ONCE, _SEED, _LEVELS = 1000, 25, 0, (2.5, 97.5)  # 25 draws at once bound the memory of (draws, n) arrays
_CHANCE = (1.959964 + 0.841621) / 1.959964  # interval halves that a probability of 80 % takes


def auroc_by_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute each class's AUROC exactly: the share of (positive, negative) pairs of images in the right order.

    A tie counts half (Mann-Whitney U divided by the number of pairs; Hanley and McNeil 1982).

    Args:
        values: (n, K) outputs.
        labels: (n, K) of 0 and 1.

    Returns:
        (K,) float64; NaN for a class with only positive or only negative images, or with an output that is not finite.
    """
    once = np.ones((1, len(values)))
    return np.array([_Ranked(values[:, k], labels[:, k]).area(once)[0] for k in range(values.shape[1])])


def auroc_table(
    reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, name: Callable[[int], str]
) -> tuple[ClassScore, ...]:
    """Compute the AUROC of checkpoint and engine for every class with positive and negative images.

    Args:
        reference: (n, K) outputs of the checkpoint.
        candidate: (n, K) outputs of the engine.
        labels: (n, K) of 0 and 1.
        name: Index of a class → its name.
    """
    before, after, n = auroc_by_class(reference, labels), auroc_by_class(candidate, labels), labels.sum(axis=0)
    return tuple(
        ClassScore(index=k, name=name(k), n=int(n[k]), reference=float(before[k]), found=float(after[k]))
        for k in range(labels.shape[1])
        if 0 < n[k] < len(labels)
    )


def auroc_drop(reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, limit: float | None = None) -> Drop:
    """Compute the drop in mean AUROC on the same images, over the classes with positive and negative images.

    The interval is the 2.5th to 97.5th percentile of 1,000 paired bootstrap draws of images (seed 0): checkpoint and
    engine are scored on the same draw. A draw in which a class has only positive or only negative images leaves that
    class out.

    Args:
        reference: (n, K) outputs of the checkpoint.
        candidate: (n, K) outputs of the engine.
        labels: (n, K) of 0 and 1.
        limit: Limit in percentage points that will judge the drop; `Drop.needed` is computed only with one. Half the
            interval shrinks with √n, and a probability of 80 % takes (1.96 + 0.84) / 1.96 of that half.
    """
    lost = auroc_by_class(reference, labels) - auroc_by_class(candidate, labels)
    both = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
    if not both or not np.isfinite(lost[both]).all():
        nan = float("nan")
        return Drop(what="mean AUROC", points=nan, low=nan, high=nan)
    pairs = [(_Ranked(reference[:, k], labels[:, k]), _Ranked(candidate[:, k], labels[:, k])) for k in both]
    drawn = _drawn_means(lambda draws: [before.area(draws) - after.area(draws) for before, after in pairs], len(labels))
    low, high = np.percentile(100 * drawn, _LEVELS)
    drop = Drop(what="mean AUROC", points=100 * float(lost[both].mean()), low=float(low), high=float(high))
    if limit is None or limit <= drop.points or drop.answer(limit) != "too few images to tell":
        return drop
    wider = (drop.high - drop.points) * _CHANCE / (limit - drop.points)
    return Drop(**vars(drop) | {"needed": math.ceil(len(labels) * wider**2)})


def mean_auroc(values: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Compute the mean AUROC over the classes with positive and negative images, and the ends of its 95 % interval.

    The interval is that of `auroc_drop`, of one network.

    Args:
        values: (n, K) outputs.
        labels: (n, K) of 0 and 1.

    Returns:
        Mean and both ends; NaN where no class can be scored, or an output is not finite.
    """
    both = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
    ranked = [_Ranked(values[:, k], labels[:, k]) for k in both]
    areas = np.array([one.area(np.ones((1, len(values))))[0] for one in ranked])
    if not both or not np.isfinite(areas).all():
        return math.nan, math.nan, math.nan
    low, high = np.percentile(_drawn_means(lambda draws: [one.area(draws) for one in ranked], len(labels)), _LEVELS)
    return float(areas.mean()), float(low), float(high)


def _drawn_means(of_classes: Callable[[np.ndarray], list[np.ndarray]], n: int) -> np.ndarray:
    """Compute the mean over the classes in each draw: (draws,) at most, without those in which no class can be scored.

    Args:
        of_classes: (draws, n) counts of how often each image was drawn → what each class has in each draw, (draws,).
        n: Number of images.
    """
    random, means = np.random.default_rng(_SEED), []
    for _ in range(_DRAWS // _AT_ONCE):
        weights = random.multinomial(n, np.full(n, 1 / n), _AT_ONCE).astype(np.float64)
        found = np.stack(of_classes(weights))
        scored = np.isfinite(found)
        some = scored.any(axis=0)
        means.append(np.where(scored, found, 0).sum(axis=0)[some] / scored.sum(axis=0)[some])
    return np.concatenate(means)


class _Ranked:
    """The images of one class sorted by output, so that a draw of images is scored without sorting again."""

    def __init__(self, values: np.ndarray, labels: np.ndarray) -> None:
        """Sort (n,) outputs with their (n,) labels."""
        self._finite = bool(np.isfinite(values).all())
        self._order = np.argsort(values, kind="stable")
        ranked = values[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        self._yes = labels[self._order] == 1

    def area(self, weights: np.ndarray) -> np.ndarray:
        """Compute the AUROC of each draw: (draws, n) counts of how often each image was drawn → (draws,)."""
        if not self._finite:
            return np.full(len(weights), np.nan)
        drawn = weights[:, self._order]
        yes = np.add.reduceat(drawn * self._yes, self._starts, axis=1)
        no = np.add.reduceat(drawn * ~self._yes, self._starts, axis=1)
        below = np.cumsum(no, axis=1) - no
        pairs = yes.sum(axis=1) * no.sum(axis=1)
        right = (yes * (below + no / 2)).sum(axis=1)
        return np.asarray(np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
