"""Statistics of two predictors on the same images: the drop in accuracy, its interval, and the sample size for a limit.

All of it needs only two counts: images that the first alone classifies correctly (lost), and those that the second
alone does (won). Images on which both are right or wrong cancel, so the interval is far narrower than that of two
separate accuracies.
"""

import math

import numpy as np

from deploy_kit.records.parity import Drop

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
Z80 = 0.8416212335729143  # its 80 % quantile


def discordant_counts(reference_hits: np.ndarray, candidate_hits: np.ndarray) -> tuple[int, int]:
    """Count the discordant images: (n,) bool, (n,) bool → (lost, won)."""
    return int((reference_hits & ~candidate_hits).sum()), int((candidate_hits & ~reference_hits).sum())


def top1_drop(reference_hits: np.ndarray, candidate_hits: np.ndarray, limit: float | None = None) -> Drop:
    """Compute the drop in top-1 accuracy on the same images.

    Args:
        reference_hits: (n,) bool: whether the checkpoint is right on each image.
        candidate_hits: (n,) bool: whether the engine is right on each image.
        limit: Limit in percentage points that will judge the drop; `Drop.needed` is computed only with one.
    """
    return drop_of_counts(*discordant_counts(reference_hits, candidate_hits), len(reference_hits), limit)


def drop_of_counts(lost: int, won: int, n: int, limit: float | None = None) -> Drop:
    """Compute the drop in top-1 accuracy from its counts.

    Args:
        lost: Number of images that only the checkpoint classifies correctly.
        won: Number of images that only the engine classifies correctly.
        n: Number of images.
        limit: As in `top1_drop`.
    """
    low, high = drop_interval(lost, won, n)
    drop = Drop(
        what="top-1",
        points=100 * (lost - won) / n,
        low=100 * low,
        high=100 * high,
        lost=lost,
        won=won,
        p=mcnemar_p(lost, won),
    )
    if limit is None or drop.answer(limit) != "too few images to tell":
        return drop
    return Drop(**vars(drop) | {"needed": images_needed(lost, won, n, limit / 100)})


def drop_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of the share of images lost, (lost - won) / n.

    It is the outer of two intervals on each side: Tango's score interval (Statistics in Medicine 17, 1998, 891-908),
    whose upper end is right where everything that changed was lost, and Bonett and Price's adjusted Wald interval
    (Journal of Educational and Behavioral Statistics 37, 2012, 479-488), which is right where few changed in both
    directions. Neither collapses where nothing changed. Alone, over n of 100 to 10,000 with 0 to 30 images changed, the
    first covers 93.1 % at worst, and the second's upper end misses 6.2 % instead of 2.5 % where all that changed was
    lost; `tests/accuracy/test_paired.py` holds both together to 94 % and 3 %.

    Args:
        lost: Number of images that only the first predictor classifies correctly.
        won: Number of images that only the second predictor classifies correctly.
        n: Number of images.

    Returns:
        Lower and upper end, as shares in -1..1.
    """
    center, half = _adjusted_wald(lost, won, n)
    point = (lost - won) / n
    high = _root(lost, won, n, (point, 1.0), -Z)
    low = _root(lost, won, n, (-1.0, point), Z)
    return max(min(low, center - half), -1.0), min(max(high, center + half), 1.0)


def mcnemar_p(lost: int, won: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test: twice the smaller tail of Bin(lost + won, ½)."""
    n, fewer = lost + won, min(lost, won)
    # In logarithms, because 2ⁿ overflows a float from n = 1024 on.
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(way - n * math.log(2)) for way in ways))


def images_needed(lost: int, won: int, n: int, limit: float) -> int | None:
    """Compute the number of images that would show a limit to be kept with a probability of 80 %, at the rates seen.

    The test "drop < limit" behind Tango's upper end has, at the rates seen, a statistic of mean √n (limit - d) / s₀
    and deviation s₁ / s₀, where d is the drop, s₀² the variance of one image's loss if the drop were the limit and s₁²
    as seen. So (Nam, Biometrics 53, 1997, 1422-1430, the sample size of this test):

        n = ( (z₀.₉₇₅ s₀ + z₀.₈ s₁) / (limit - d) )²

    Args:
        lost: Number of images lost.
        won: Number of images won.
        n: Number of images on which they were counted.
        limit: Share of images that may be lost, in 0..1.

    Returns:
        Number of images; None where the drop seen is not below the limit, so that no number would do.
    """
    seen = (lost - won) / n
    if limit <= seen:
        return None
    if lost == won == 0 and limit >= 1:
        return 1
    at_limit = _variance(lost / n, won / n, limit)
    as_seen = (lost + won) / n - seen**2
    return max(1, math.ceil(((Z * math.sqrt(at_limit) + Z80 * math.sqrt(as_seen)) / (limit - seen)) ** 2))


def fewest_images(limit: float) -> int | None:
    """Compute the fewest images that can show a limit to be kept, which is where no image changed.

    Args:
        limit: Share of images that may be lost, in 0..1.

    Returns:
        Number of images; None for a limit of 0 or below, which no number of images can show.
    """
    if limit <= 0:
        return None
    few, enough = 0, 1
    while drop_interval(0, 0, enough)[1] > limit:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if drop_interval(0, 0, middle)[1] <= limit else (middle, enough)
    return enough


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share, hits / n (J. of the American Statistical Association 22, 1927)."""
    share, weight = hits / n, Z * Z / n
    center = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, center - half), min(1.0, center + half)


def _adjusted_wald(lost: int, won: int, n: int) -> tuple[float, float]:
    """Compute center and half width of Bonett and Price's interval: Wald's, with one image added to each count."""
    p, q = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    return p - q, Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))


def _variance(lost: float, won: float, drop: float) -> float:
    """Compute the variance of one image's loss if the share lost were `drop`: Tango's equation for the share won, q.

    2 q² - (lost + won - (2 - lost + won) drop) q - won drop (1 - drop) = 0;  variance = 2 q + drop (1 - drop)
    """
    b = -lost - won + (2 - lost + won) * drop
    c = -won * drop * (1 - drop)
    q = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return 2 * q + drop * (1 - drop)


def _score(lost: int, won: int, n: int, drop: float) -> float:
    """Compute Tango's statistic: the number of standard deviations that the drop seen lies above `drop`."""
    distance = (lost - won) / n - drop
    variance = _variance(lost / n, won / n, drop)
    if variance <= 0:  # it vanishes for a drop of ±1, and for a drop of 0 where nothing changed
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance * math.sqrt(n / variance)


def _root(lost: int, won: int, n: int, between: tuple[float, float], level: float) -> float:
    """Find where the statistic, which falls as the drop grows, crosses `level`."""
    low, high = between
    for _ in range(60):  # halves an interval of at most 2 to below the spacing of floats near 1 (2⁻⁵²)
        middle = (low + high) / 2
        if _score(lost, won, n, middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
