"""Whether an engine agrees with itself: one image at several places, alone and in a batch, again and after others.

Needs no labels and no checkpoint, and runs at most 64 images.
"""

import math
from collections.abc import Callable

import numpy as np

from deploy_kit.records.artifacts import Precision
from deploy_kit.records.parity import Consistency

SAMPLE, _ALONE, _COPIES = 10, 4, 20
# Of the largest output. Another batch may take another kernel, which adds in another order: a few steps of the number
# format, for fp32 those of TF32 (2⁻¹⁰), which GPUs take for it; int8 and bf16 may round to the next step of 2⁻⁸.
# Seen on a CPU (ONNX Runtime, OpenVINO): equal bits, but for fp16 and bf16 alone against in a batch up to 3e-5.
ALLOWED: dict[Precision, float] = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2}

RunImages = Callable[[np.ndarray, int], np.ndarray]
"""Images (n, C, H, W) and how many to run at once, where that is open → outputs (n, K)."""


def examine_consistency(ask: RunImages, images: np.ndarray, fixed_batch: int, precision: Precision) -> Consistency:
    """Ask an engine the same in several ways.

    Args:
        ask: Runs it.
        images: (n, C, H, W) float32; the first ten are used.
        fixed_batch: Images in a run; 0 where that is open.
        precision: Of the engine, which says how far sums in another order may lie apart.
    """
    sample = images[:SAMPLE]
    batch = fixed_batch or len(sample)
    first, second = ask(sample, batch), ask(sample, batch)
    mirrored = ask(sample[::-1], batch)[::-1]  # another input between, and each image at another place
    third = ask(sample, batch)
    copies = ask(np.repeat(sample[:1], _COPIES, axis=0), fixed_batch or _COPIES)
    alone = np.concatenate([ask(image[None], 1) for image in sample[:_ALONE]]) if batch > 1 else None
    scale = float(np.abs(first).max(initial=0, where=np.isfinite(first))) or 1.0
    return Consistency(
        n=len(sample),
        batch=batch,
        positions=max(_apart(copies[:1], copies), _apart(first, mirrored)) / scale,
        batches=None if alone is None else _apart(first[:_ALONE], alone) / scale,
        again=max(_apart(first, second), _apart(first, third)) / scale,
        allowed=ALLOWED[precision],
    )


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Give the largest |difference|; infinite where only one of both is a finite number."""
    a, b = np.broadcast_arrays(one.astype(np.float64), other.astype(np.float64))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return math.inf
    finite = np.isfinite(a)
    return float(np.abs(a[finite] - b[finite]).max(initial=0))
