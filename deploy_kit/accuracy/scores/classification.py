"""Scores of images with one label: top-k accuracy, recall by class, and labels that look permuted."""

import math
from collections.abc import Callable

import numpy as np

from deploy_kit.accuracy import metrics
from deploy_kit.records.parity import LOW_TOP1, ClassScore

_FEW, _MAJORITY, _NAMED = 4, 0.5, 10
_GUESSED = 100  # images; of fewer a weak network cannot be told from a guess


def top_k(values: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Compute the top-k accuracy: the share of images with fewer than `k` classes above the label's.

    Of equal values the lower class index counts as above, as for `argmax`: an engine that gives all classes the same
    value must not gain by it.

    Args:
        values: (n, K) outputs.
        labels: (n,) class indices.
        k: Number of classes that may contain the label.

    Returns:
        Share in 0..1; an image with an output that is not finite counts as wrong.
    """
    own = values[np.arange(len(labels)), labels][:, None]
    lower = np.arange(values.shape[1]) < labels[:, None]
    above = ((values > own) | ((values == own) & lower)).sum(axis=1)
    return float(((above < k) & np.isfinite(values).all(axis=1)).mean())


def recall_table(
    reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, name: Callable[[int], str]
) -> tuple[ClassScore, ...]:
    """Compute the recall of checkpoint and engine for every class that has images.

    Args:
        reference: (n, K) outputs of the checkpoint.
        candidate: (n, K) outputs of the engine.
        labels: (n,) class indices.
        name: Index of a class → its name.
    """
    n = np.bincount(labels)
    before, after = (np.bincount(labels, metrics.top1_hits(values, labels)) for values in (reference, candidate))
    return tuple(
        ClassScore(
            index=int(i),
            name=name(int(i)),
            n=int(n[i]),
            reference=float(before[i] / n[i]),
            found=float(after[i] / n[i]),
        )
        for i in np.flatnonzero(n)
    )


def mistaken_labels(values: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Find labels whose images are mostly taken for one other class, for which no other label is taken.

    The even images of a label decide the class that is predicted for most of them. Where that is another class, it must
    be predicted for most of the odd images too, so that one half of the images confirms the other. No two labels may
    claim the same class, and a label needs four images in each half.

    Args:
        values: (n, K) outputs of the checkpoint.
        labels: (n,) class indices.

    Returns:
        (label, class predicted for it) for each pair that differs.
    """
    predicted = values.argmax(axis=1)
    claims = {}
    for label in np.unique(labels):
        of_label = predicted[labels == label]
        first, second = of_label[::2], of_label[1::2]
        if len(second) < _FEW:
            continue
        claimed = int(np.bincount(first).argmax())
        if min((first == claimed).mean(), (second == claimed).mean()) > _MAJORITY:
            claims[int(label)] = claimed
    targets = list(claims.values())
    return tuple((label, to) for label, to in claims.items() if label != to and targets.count(to) == 1)


def permuted_labels(values: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Find labels that look permuted, e.g. where class folders are in another order than the checkpoint's classes.

    Wrongly prepared images are taken for other classes too: only where the network is right on most images once the
    labels are corrected do the labels explain its score. Of ten classes, 34 % was the most under a wrong preprocessing.

    Args:
        values: (n, K) outputs of the checkpoint.
        labels: (n,) class indices.

    Returns:
        The pairs of `mistaken_labels`; empty where the labels look right, or correcting them leaves the score low.
    """
    return mistaken_labels(values, labels) if relabelled_top1(values, labels) >= LOW_TOP1 else ()


def relabelled_top1(values: np.ndarray, labels: np.ndarray) -> float:
    """Compute the top-1 accuracy in 0..1 that `values` (n, K) would have if mistaken labels (n,) were corrected."""
    right = labels.copy()
    for label, to in mistaken_labels(values, labels):
        right[labels == label] = to
    return float(metrics.top1_hits(values, right).mean())


def describe_guessing(hits: np.ndarray, n_classes: int) -> tuple[str, ...]:
    """Describe that a network is right no more often than a guess would be; empty where it is, or images are few.

    Args:
        hits: (n,) bool, whether the network is right.
        n_classes: Number of classes: of so many images a guess is right in one, give or take three standard deviations
            of the binomial distribution.
    """
    n, chance = len(hits), 1 / max(n_classes, 1)
    if n_classes < 2 or n < _GUESSED or hits.mean() > chance + 3 * math.sqrt(chance * (1 - chance) / n):
        return ()
    return (
        f"the network is right in {hits.mean():.2%} of {n:,} images, and a guess among {n_classes} classes in "
        f"{chance:.2%}: its preprocessing, its weights or the labels are not what they should be",
    )


def describe_permuted_labels(values: np.ndarray, labels: np.ndarray, name: Callable[[int], str]) -> tuple[str, ...]:
    """Describe which labels look permuted, in at most one sentence; empty where they look right."""
    pairs = permuted_labels(values, labels)
    if not pairs:
        return ()
    return (
        f"labels look permuted (label → class that most of its images are taken for: {_named(pairs, name)}): class "
        "folders are sorted by name, and the checkpoint's order may differ; name its classes in its own order, one a "
        "line, in classes.txt",
    )


def describe_mistaken_labels(values: np.ndarray, labels: np.ndarray, name: Callable[[int], str]) -> tuple[str, ...]:
    """Describe which labels are taken for others and not permuted, in at most one sentence; empty where none is."""
    pairs = mistaken_labels(values, labels)
    corrected = relabelled_top1(values, labels)
    if not pairs or corrected >= LOW_TOP1:
        return ()
    return (
        f"most images of a label are taken for one other class ({_named(pairs, name)}), and no other order of the "
        f"classes explains it: with these exchanged {100 * corrected:.1f} % would be right; check --input, --mean, "
        "--std and --color, as in training",
    )


def _named(pairs: tuple[tuple[int, int], ...], name: Callable[[int], str]) -> str:
    named = [f"{name(label) or label} → {name(to) or to}" for label, to in pairs[:_NAMED]]
    return ", ".join(named) + (f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else "")
