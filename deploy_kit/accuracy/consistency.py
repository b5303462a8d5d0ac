"""Consistency of an engine: the same image at several places of a batch, alone and in a batch, and run again.

It needs neither labels nor the checkpoint, and runs at most 64 images.
"""

import math
from collections.abc import Callable

import numpy as np

from deploy_kit.records.artifacts import Precision
from deploy_kit.records.parity import Consistency

SAMPLE, _ALONE, COPIES = 10, 4, 20
# Relative to the largest output. Another batch size may select another kernel, which adds in another order: a few steps
# of the number format, for fp32 those of TF32 (2⁻¹⁰), which GPUs use for it; int8 and bf16 may round to the next step
# of 2⁻⁸. Measured on a CPU (ONNX Runtime, OpenVINO): equal bits, except for fp16 and bf16 alone against in a batch, up
# to 3e-5.
ALLOWED: dict[Precision, float] = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2}

RunImages = Callable[[np.ndarray, int], np.ndarray]
"""(images (n, C, H, W), batch size where the engine leaves it open) → outputs (n, K)."""


def examine_consistency(
    run: RunImages, images: np.ndarray, fixed_batch: int, precision: Precision, *, copies: int = COPIES
) -> Consistency:
    """Run the same images through an engine in several ways and compare the outputs.

    Args:
        run: Runs images through the engine.
        images: (n, C, H, W) float32; the first ten are used.
        fixed_batch: Batch size of the engine; 0 where it is open.
        precision: Precision of the engine, which decides the differences that are allowed.
        copies: Number of copies of one image that fill a batch; outputs that are large maps take fewer.
    """
    sample = images[:SAMPLE]
    batch = fixed_batch or len(sample)
    first, second = run(sample, batch), run(sample, batch)
    mirrored = run(sample[::-1], batch)[::-1]  # another input in between, and each image at another place
    third = run(sample, batch)
    filled = run(np.repeat(sample[:1], copies, axis=0), fixed_batch or copies)
    alone = np.concatenate([run(image[None], 1) for image in sample[:_ALONE]]) if batch > 1 else None
    scale = float(np.abs(first).max(initial=0, where=np.isfinite(first))) or 1.0
    return Consistency(
        n=len(sample),
        batch=batch,
        positions=max(_apart(filled[:1], filled), _apart(first, mirrored)) / scale,
        batches=None if alone is None else _apart(first[:_ALONE], alone) / scale,
        again=max(_apart(first, second), _apart(first, third)) / scale,
        allowed=ALLOWED[precision],
    )


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest absolute difference; infinite where only one of the two is finite."""
    a, b = np.broadcast_arrays(one.astype(np.float64), other.astype(np.float64))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return math.inf
    finite = np.isfinite(a)
    return float(np.abs(a[finite] - b[finite]).max(initial=0))
