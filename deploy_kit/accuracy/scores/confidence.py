"""Kind of a network's outputs, their probabilities, and how far confidences are from the share that is right."""

import numpy as np

from deploy_kit.records.parity import Outputs

_BINS = 15


def output_kind(values: np.ndarray) -> Outputs:
    """Classify outputs (n, K) by their values.

    They are a softmax's where all lie in [0, 1] and rows sum to 1 within 1e-3, a sigmoid's where all lie in [0, 1] with
    other sums, and logits otherwise. A log-softmax counts as logits, because its softmax is the probability.
    """
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        return "logits"
    sums = values.sum(axis=1, dtype=np.float64)
    return "softmax" if values.shape[1] > 1 and np.abs(sums - 1).max() <= 1e-3 else "sigmoid"


def to_probabilities(values: np.ndarray, kind: Outputs, *, each: bool = False) -> np.ndarray:
    """Convert outputs (n, K) to probabilities (n, K) float64; outputs that are probabilities already stay as they are.

    Args:
        values: Outputs of the network.
        kind: Kind of the outputs.
        each: Whether classes are independent of each other, so that logits go through a sigmoid instead of a softmax.
    """
    wide = values.astype(np.float64)
    if kind != "logits":
        return wide
    if each:
        return np.asarray(1 / (1 + np.exp(-np.clip(wide, -700, 700))))  # exp overflows a float64 from 710 on
    raised = np.exp(wide - wide.max(axis=1, keepdims=True))  # the largest exponent is 0, so none overflows
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Compute the expected calibration error of confidences.

        ECE = Σ_b |b| / n · | share right in b - mean confidence in b |

    It takes 15 bins b of equal width that include their upper edge (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, equation 3).

    Args:
        confidence: (n,) confidences in 0..1.
        right: (n,) bool: whether each prediction is right.

    Returns:
        Error in 0..1; NaN where a confidence is not finite.
    """
    if not np.isfinite(confidence).all():
        return float("nan")
    # Rounding up puts an upper edge into the bin below it; a confidence of 0 goes into the first bin.
    place = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    # |b| times the difference of the two means is the difference of the two sums, so no bin is divided by its count.
    gaps = np.bincount(place, right.astype(np.float64) - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def expected_calibration_error(values: np.ndarray, kind: Outputs, labels: np.ndarray) -> float:
    """Compute the expected calibration error of outputs (n, K).

    With labels (n,) the confidence is that of the predicted class. With labels (n, K) of 0 and 1 each of the n · K
    outputs is a prediction of its own, whose confidence is its probability.
    """
    if not np.isfinite(values).all():
        return float("nan")
    each = labels.ndim == 2
    sure = to_probabilities(values, kind, each=each)
    if each:
        return calibration_error(sure.ravel(), labels.ravel() == 1)
    return calibration_error(sure.max(axis=1), values.argmax(axis=1) == labels)
