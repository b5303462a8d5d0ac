"""Distances between two sets of logits."""

import math

import numpy as np


def _same_shape(reference: np.ndarray, candidate: np.ndarray) -> None:
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Measure how far quantization noise lies under the signal.

        SQNR = 10 log10( Σ r² / Σ (r - c)² )

    Args:
        reference: (N, K) float32 logits of the checkpoint.
        candidate: (N, K) float32 logits of the engine, same images, same order.

    Returns:
        Decibels; higher is better; ``inf`` when both are equal; ``-inf`` or NaN where the candidate is not finite.

    Raises:
        ValueError: The shapes differ, or the reference is all zero.
    """
    _same_shape(reference, candidate)
    signal = float(np.square(reference, dtype=np.float64).sum())
    return sqnr_of_sums(signal, float(np.square(reference.astype(np.float64) - candidate).sum()))


def sqnr_of_sums(signal: float, noise: float) -> float:
    """Compute `sqnr_db` of Σ r² and Σ (r - c)².

    Raises:
        ValueError: The reference is all zero.
    """
    if signal == 0:
        raise ValueError("the reference is all zero")
    if not math.isfinite(noise):
        return -noise
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)


def relative_difference(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Compute the largest absolute difference, divided by the largest absolute reference.

    Args:
        reference: (N, K) logits of the checkpoint.
        candidate: (N, K) logits of the engine, same images, same order.

    Returns:
        0 when both are equal; NaN where the candidate holds NaN.

    Raises:
        ValueError: The shapes differ, or the reference is all zero.
    """
    _same_shape(reference, candidate)
    largest = float(np.abs(reference).max())
    if largest == 0:
        raise ValueError("the reference is all zero")
    return float(np.abs(reference.astype(np.float64) - candidate).max()) / largest


def cosine_similarity(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Compute the cosine of the angle between all logits, taken as one vector.

        cos = Σ r c / √( Σ r² · Σ c² )

    Args:
        reference: (N, K) logits of the checkpoint.
        candidate: (N, K) logits of the engine, same images, same order.

    Returns:
        1 for the same direction; 0 where either is all zero.
    """
    _same_shape(reference, candidate)
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    length = math.sqrt(float(np.square(r).sum()) * float(np.square(c).sum()))
    return float((r * c).sum()) / length if length else 0.0


def largest_errors(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Compute each image's largest absolute difference of a logit: (N, K), (N, K) → (N,). NaN stays NaN."""
    _same_shape(reference, candidate)
    return np.asarray(np.abs(reference.astype(np.float64) - candidate).max(axis=1))


def top1_agreement(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Compute the share of images in 0..1 on which both have the same top-1 class; NaN agrees with nothing."""
    _same_shape(reference, candidate)
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    return float((same & np.isfinite(candidate).all(axis=1)).mean())


def kl_divergence(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Compute the mean Kullback-Leibler divergence of the candidate's probabilities from the reference's.

        KL = mean over images of Σ p·(log p − log q),   p, q: softmax of the logits

    Args:
        reference: (N, K) logits of the checkpoint.
        candidate: (N, K) logits of the engine, same images, same order.

    Returns:
        Nats; 0 when both are equal, NaN where the candidate is not finite.
    """
    _same_shape(reference, candidate)
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def top1_hits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each image whether the largest logit is at the label: (N, K), (N,) → (N,) bool; NaN never is."""
    return np.asarray((logits.argmax(axis=1) == labels) & np.isfinite(logits).all(axis=1))
