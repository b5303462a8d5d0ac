"""Images whose predicted class differs from the checkpoint's, and how certain the checkpoint was about them."""

from collections.abc import Callable

import numpy as np

from deploy_kit.records.parity import Flip, Flips

_WORST = 10


def top1_margins(values: np.ndarray) -> np.ndarray:
    """Compute each image's largest output minus its second largest: (n, K) → (n,); 0 for a single output."""
    if values.shape[1] < 2:
        return np.zeros(len(values))
    two = np.partition(values, -2, axis=1)[:, -2:].astype(np.float64)
    with np.errstate(invalid="ignore"):  # two infinities have no margin: NaN says so
        return np.asarray(two[:, 1] - two[:, 0])


def find_flips(
    reference: np.ndarray, candidate: np.ndarray, name: Callable[[int], str], labels: np.ndarray | None = None
) -> Flips:
    """Find the images whose predicted class differs from the checkpoint's.

    Args:
        reference: (n, K) outputs of the checkpoint.
        candidate: (n, K) outputs of the engine; an image with an output that is not finite counts as a flip.
        name: Index of an image → its name in the image set.
        labels: (n,) class numbers; None without labels.
    """
    before, after = reference.argmax(axis=1), candidate.argmax(axis=1)
    changed = np.flatnonzero((before != after) | ~np.isfinite(candidate).all(axis=1))
    margin, found_margin = top1_margins(reference), top1_margins(candidate)
    close = float(np.percentile(margin, 5))
    worst = changed[np.argsort(-margin[changed], kind="stable")][:_WORST]
    return Flips(
        n=len(changed),
        close_margin=close,
        close=int((margin[changed] <= close).sum()),
        worst=tuple(
            Flip(
                image=int(i),
                name=name(int(i)),
                margin=float(margin[i]),
                reference=int(before[i]),
                found=int(after[i]),
                found_margin=float(found_margin[i]),
                label=None if labels is None else int(labels[i]),
            )
            for i in worst
        ),
    )
