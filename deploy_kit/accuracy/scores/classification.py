"""One label an image: top-k, recall of each class, and labels that look exchanged."""

from collections.abc import Callable

import numpy as np

from deploy_kit.accuracy import metrics
from deploy_kit.records.parity import ClassScore

_FEW, _MAJORITY, _NAMED = 4, 0.5, 10


def top_k(values: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Give the share of images with fewer than `k` classes above the label's: (n, K), (n,); NaN never hits.

    Of equal values the lower class is above, as for `argmax`: whoever gives one value to all must not gain by it.
    """
    own = values[np.arange(len(labels)), labels][:, None]
    lower = np.arange(values.shape[1]) < labels[:, None]
    above = ((values > own) | ((values == own) & lower)).sum(axis=1)
    return float(((above < k) & np.isfinite(values).all(axis=1)).mean())


def recall_table(
    reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, name: Callable[[int], str]
) -> tuple[ClassScore, ...]:
    """Give both recalls of every class that has images: (n, K), (n, K), (n,)."""
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


def permuted_labels(values: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Find labels that look exchanged, e.g. class folders in another order than the checkpoint's classes.

    The even images say which class is predicted for most images of a label; where that is another one, the odd images
    must bear it out: for most of them too. No two labels may claim one class, and a label needs four images in each
    half.

    Args:
        values: (n, K) outputs of the checkpoint.
        labels: (n,).

    Returns:
        (label, class predicted for it) for each that differ; empty where labels look right.
    """
    found = values.argmax(axis=1)
    claims = {}
    for label in np.unique(labels):
        mine = found[labels == label]
        first, second = mine[::2], mine[1::2]
        if len(second) < _FEW:
            continue
        claimed = int(np.bincount(first).argmax())
        if min((first == claimed).mean(), (second == claimed).mean()) > _MAJORITY:
            claims[int(label)] = claimed
    targets = list(claims.values())
    return tuple((label, to) for label, to in claims.items() if label != to and targets.count(to) == 1)


def relabelled_top1(values: np.ndarray, labels: np.ndarray) -> float:
    """Give the top-1 if labels that look exchanged were set right: (n, K), (n,) → 0..1."""
    right = labels.copy()
    for label, to in permuted_labels(values, labels):
        right[labels == label] = to
    return float(metrics.top1_hits(values, right).mean())


def describe_permuted_labels(values: np.ndarray, labels: np.ndarray, name: Callable[[int], str]) -> tuple[str, ...]:
    """Say in words which labels look exchanged; empty where they look right."""
    pairs = permuted_labels(values, labels)
    if not pairs:
        return ()
    named = [f"{name(label) or label} → {name(to) or to}" for label, to in pairs[:_NAMED]]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return (
        f"labels look permuted (label → class that most of its images are taken for: {', '.join(named)}{more}): class "
        "folders are sorted by name, and the checkpoint's order may differ; name its classes in its own order, one a "
        "line, in classes.txt",
    )
