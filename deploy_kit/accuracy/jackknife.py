"""The drop in a score of the whole set, with an interval over images: for scores that are functions of sums.

mIoU, a character error rate or a relative error of a set is computed from counts that are summed over its images first.
Images are the unit: pixels and characters of one image are not independent.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from deploy_kit.accuracy.paired import Z80, Z
from deploy_kit.records.parity import Drop

ScoreOf = Callable[[np.ndarray], np.ndarray]
"""Sums (…, M) → score (…,), 1 for the best."""
_T = (12.706, 4.303, 3.182, 2.776)  # 97.5 % quantiles of Student's t for 1 to 4 degrees of freedom


def paired_drop(
    reference: np.ndarray, candidate: np.ndarray, score: ScoreOf, what: str, limit: float | None = None
) -> Drop:
    """Compute how much lower the candidate's score of the whole set is.

    The 95 % interval is the jackknife's (Tukey 1958; Miller, Biometrika 61, 1974, 1-15) with Student's t: both scores
    are computed again without each image, and their difference varies by

        s² = (n - 1) / n · Σ (d₍ᵢ₎ - mean of d₍ᵢ₎)²

    Args:
        reference: (n, M) counts of each image for the checkpoint's answer.
        candidate: (n, M) counts of each image for the engine's.
        score: Score of sums over images; a score that is not finite gives no interval.
        what: Name of the score.
        limit: Limit in percentage points that will judge the drop; `Drop.needed` is computed only with one.

    Returns:
        Drop in percentage points. One image alone has no interval: NaN.
    """
    n = len(reference)
    before, after = reference.sum(axis=0), candidate.sum(axis=0)
    points = 100 * float(score(before) - score(after))
    if n < 2:
        return Drop(what=what, points=points, low=math.nan, high=math.nan)
    half = _half(100 * (score(before - reference) - score(after - candidate)))
    drop = Drop(what=what, points=points, low=points - half, high=points + half)
    if limit is None or drop.answer(limit) != "too few images to tell":
        return drop
    return dataclasses.replace(drop, needed=images_needed(drop, n, limit))


def interval(counts: np.ndarray, score: ScoreOf) -> tuple[float, float]:
    """Compute the jackknife's 95 % interval of the score of a set from counts (n, M); NaN for one image alone."""
    total = counts.sum(axis=0)
    whole, half = float(score(total)), _half(score(total - counts)) if len(counts) > 1 else math.nan
    return whole - half, whole + half


def _half(left: np.ndarray) -> float:
    """Compute half the 95 % interval of a score from its values (n,) without each image."""
    n = len(left)
    return student_t(n - 1) * math.sqrt((n - 1) / n * float(np.square(left - left.mean()).sum()))


def images_needed(drop: Drop, n: int, limit: float) -> int | None:
    """Compute the number of images that would show a limit to be kept with a probability of 80 %.

    Half the interval shrinks with √n, and a probability of 80 % takes (z₀.₉₇₅ + z₀.₈) / z₀.₉₇₅ of it.

    Args:
        drop: Drop on n images.
        n: Number of images.
        limit: Limit in percentage points.

    Returns:
        Number of images; None where the drop is not below the limit, or there is no interval.
    """
    half = drop.high - drop.points
    if limit <= drop.points or not math.isfinite(half):
        return None
    return max(2, math.ceil(n * (half * (Z + Z80) / Z / (limit - drop.points)) ** 2))


def student_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t: exact to 4 digits (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    terms: tuple[float, ...] = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
