"""Which images of a check set a float32 engine computes, and what bounds the others.

Two float32 programs of one function differ by rounding, which is alike on all images; a class can change only where the
checkpoint's two largest outputs are closer than twice that. Engines of other precisions compute every image.
"""

from collections.abc import Callable

import numpy as np

from deploy_kit.accuracy.metrics import largest_errors
from deploy_kit.accuracy.scores.flips import top1_margins

LEAST = 500  # images; of fewer, all are computed
SPREAD, EXTREME = 128, 32
# Other logits may deviate by this many times as much as those computed, and no class changes.
FACTOR = 8
# Of the largest logit: more is not float32's rounding. Seen on DenseNet-121: 2e-6; TF32 gives 1e-3.
ROUNDING = 1e-4


def sampled_logits(reference: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the images at equal distances, those with the smallest margins, and those with the largest outputs.

    Images whose margin is within 2 · `FACTOR` of the largest deviation seen follow. A deviation that is larger than
    rounding, or not finite, makes it all images.

    Args:
        reference: (n, K) logits of the checkpoint.
        compute: (m,) ascending indices of images → (m, K) logits of the engine.

    Returns:
        (n, K) logits of the engine, those of the checkpoint where it was not run; (n,) bool where it was.
    """
    n = len(reference)
    margins, sizes = top1_margins(reference), np.abs(reference).max(axis=1)
    pending, computed = np.zeros(n, bool), np.zeros(n, bool)
    pending[np.arange(SPREAD) * n // SPREAD] = True
    pending[np.argsort(margins, kind="stable")[:EXTREME]] = True
    pending[np.argsort(-sizes, kind="stable")[:EXTREME]] = True
    found = reference.copy()
    while pending.any():
        at = np.flatnonzero(pending)
        found[at] = compute(at)
        again = computed.any()
        computed |= pending
        worst = largest_errors(reference[computed], found[computed]).max()
        within = worst <= ROUNDING * sizes.max() and not (again and computed.sum() > n // 2)
        pending = ~computed & ~(margins > 2 * FACTOR * worst) if within else ~computed
    return found, computed
