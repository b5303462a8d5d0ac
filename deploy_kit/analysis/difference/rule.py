"""When two networks part: a step down, not a level.

Noise of quantization is there from the first layer on; each layer passes on what it reads and adds a little. Along a
healthy network it stays level or falls slowly. A fault is a fall at one point that nothing before it explains:

    expected = min( SQNR of what the point is computed from; SQNR of earlier points of its kind, or the usual level )
    fall     = expected − SQNR ≥ 8 dB

A point is computed from what the block's concatenation holds, so a clean map that skips a bad layer explains nothing
away, and a bad one excuses its readers. The usual level (by precision, below) stands in where no point of the kind came
before; of float pairs it is always in force, as one layer's algorithm may round better than the next one's.

One channel of many may be lost without the sum showing it. So a channel whose error is as large as its own signal parts
the two as well, if it carries a signal that healthy noise cannot drown: its variance is at least 10 % of the mean
channel's power.

Measured, 16 test images, DenseNet-BC-40 of the demo and DenseNet-121 at 64×64, the export against each form: the
largest fall of a healthy pair is 3.6 dB (NNCF), 2.8 dB (ONNX Runtime's quantizer), 2.1 dB (`int8_portable`), 1.1 dB
(`int8_tensorrt`), and float pairs stay 20 dB above the usual level. Where the scale of one layer's weights is wrong
fourfold, the fall was 37 and 47 dB.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from deploy_kit.accuracy import metrics
from deploy_kit.analysis.difference import points
from deploy_kit.records.artifacts import Precision
from deploy_kit.records.difference import PointDifference, Sign

FALL_DB = 8.0
LOST_DB = 1.0
_SIGNAL = 0.1  # of the mean channel's power; healthy INT8 noise took up to 2.5 % of it (NNCF, demo)
USUAL_DB: Mapping[Precision, float] = {"fp32": 100.0, "fp16": 50.0, "bf16": 30.0, "int8": 25.0}


def layer_sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Measure how far the difference lies under the signal, as of logits, with a value for every pair of layers.

    Args:
        reference: (n, C, pixels) float64.
        candidate: The same.

    Returns:
        Decibels; ``inf`` where both are equal, ``-inf`` where either is not finite or only the reference is all zero.
    """
    if not reference.any():  # as of a layer behind a ReLU that no image opens
        return -math.inf if candidate.any() else math.inf
    found = metrics.sqnr_db(reference, candidate)
    return -math.inf if math.isnan(found) else found


def worst_channel(reference: np.ndarray, candidate: np.ndarray) -> tuple[int, float]:
    """Find the channel with the most error for its variance, among those that carry a signal.

    Args:
        reference: (n, C, pixels) float64.
        candidate: The same.

    Returns:
        Its number and 10 log10( variance / mean squared error ) in dB; -1 and ``inf`` where none carries a signal.
    """
    variance, error = reference.var((0, 2)), np.square(reference - candidate).mean((0, 2))
    if not np.isfinite(variance).all():
        return int(np.flatnonzero(~np.isfinite(variance))[0]), -math.inf
    error = np.where(np.isfinite(error), error, np.inf)
    carries = (variance > 0) & (variance >= _SIGNAL * np.square(reference).mean())
    if not carries.any():
        return -1, math.inf
    with np.errstate(divide="ignore"):
        levels = np.where(carries, 10 * (np.log10(np.where(carries, variance, 1.0)) - np.log10(error)), np.inf)
    worst = int(levels.argmin())
    return worst, float(levels[worst])


def expected_db(found: Mapping[str, float], precision: Precision) -> dict[str, float]:
    """State for each point what those before it let one expect.

    Args:
        found: SQNR of each point, in the order in which they are computed.
        precision: The coarser one of the pair.
    """
    usual, expected = USUAL_DB[precision], dict[str, float]()
    before: dict[str, float] = {}
    for name, read in points.reads(found).items():
        kind = _kind(name)
        own = before.get(kind, usual) if precision == "int8" else usual
        expected[name] = min([own, *(found[one] for one in read)])
        # A layer left in float says nothing of the grids of those behind it.
        if kind and (precision != "int8" or found[name] < USUAL_DB["fp32"]):
            before[kind] = min(found[name], before.get(kind, math.inf))
    return expected


def _kind(name: str) -> str:
    """Sort points of blocks by what makes them: those of a kind have about the same noise on 8-bit grids."""
    return (name.rpartition(".")[2] if ".conv" in name else "layer") if name.startswith("denseblock") else ""


def parted(found: Sequence[PointDifference]) -> tuple[PointDifference | None, Sign]:
    """Return the first point at which the two part, and how it shows; None where they do not."""
    for point in found:
        if point.sqnr_db == -math.inf or point.expected_db - point.sqnr_db >= FALL_DB:
            return point, "fall"
        if point.channel_db <= LOST_DB:
            return point, "lost channel"
    return None, ""
