"""Statistics of two predictors on the same images: what the second loses, how sure that is, how many images would tell.

All of it needs only counts: images that the first alone gets right (lost), that the second alone gets right (won).
"""

import math

import numpy as np

from deploy_kit.records.parity import Drop

Z = 1.959963984540054  # 97.5 % of the normal distribution
_Z80 = 0.8416212335729143  # 80 %


def discordant_counts(reference_hits: np.ndarray, candidate_hits: np.ndarray) -> tuple[int, int]:
    """Count the discordant images: (n,) bool, (n,) bool → (lost, won)."""
    return int((reference_hits & ~candidate_hits).sum()), int((candidate_hits & ~reference_hits).sum())


def top1_drop(reference_hits: np.ndarray, candidate_hits: np.ndarray, limit: float | None = None) -> Drop:
    """Measure the lost top-1 on the same images.

    Args:
        reference_hits: (n,) bool, the checkpoint's.
        candidate_hits: (n,) bool, the engine's.
        limit: Points that it will be judged by; only then `Drop.needed` is worked out.
    """
    (lost, won), n = discordant_counts(reference_hits, candidate_hits), len(reference_hits)
    low, high = drop_interval(lost, won, n)
    found = Drop(
        what="top-1",
        points=100 * (lost - won) / n,
        low=100 * low,
        high=100 * high,
        lost=lost,
        won=won,
        p=mcnemar_p(lost, won),
    )
    if limit is None or found.answer(limit) != "too few images to tell":
        return found
    return Drop(**vars(found) | {"needed": images_needed(lost, won, n, limit / 100)})


def drop_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Give the 95 % interval of the share of images lost, (lost - won) / n.

    The outer of two intervals on each side: Tango's score interval (Statistics in Medicine 17, 1998, 891-908), whose
    upper end is right where everything that changed was lost, and Bonett and Price's adjusted Wald interval (Journal of
    Educational and Behavioral Statistics 37, 2012, 479-488), which is right where few changed in both directions.
    Neither collapses where nothing changed. Alone, over n of 100 to 10,000 with 0 to 30 images changed, the first
    covers 93.1 % at worst, and the second's upper end misses 6.2 % instead of 2.5 % where all that changed was lost;
    `tests/test_paired.py` holds both together to 94 % and 3 %.
    """
    center, half = _adjusted_wald(lost, won, n)
    point = (lost - won) / n
    high = _root(lost, won, n, (point, 1.0), -Z)
    low = _root(lost, won, n, (-1.0, point), Z)
    return max(min(low, center - half), -1.0), min(max(high, center + half), 1.0)


def mcnemar_p(lost: int, won: int) -> float:
    """Give the exact two-sided p of McNemar's test: twice the smaller tail of a fair coin thrown lost + won times."""
    n, fewer = lost + won, min(lost, won)
    # By logarithms: 2ⁿ would not fit a float.
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(way - n * math.log(2)) for way in ways))


def images_needed(lost: int, won: int, n: int, limit: float) -> int | None:
    """Give the number of images that would keep a limit with a chance of 80 %, at the rates seen.

    The test "drop < limit" behind Tango's upper end has, at the rates seen, a statistic of mean √n (limit - d) / s₀
    and deviation s₁ / s₀, where d is the drop, s₀² the variance of one image's loss if the drop were the limit and s₁²
    as seen. So (Nam, Biometrics 53, 1997, 1422-1430, the sample size of this test):

        n = ( (z₀.₉₇₅ s₀ + z₀.₈ s₁) / (limit - d) )²

    Args:
        lost: Images lost.
        won: Images won.
        n: Of so many.
        limit: Share that may be lost, in 0..1.

    Returns:
        Images; None where the drop seen is no less than the limit: then no number would do.
    """
    seen = (lost - won) / n
    if limit <= seen:
        return None
    if lost == won == 0 and limit >= 1:
        return 1
    at_limit = _variance(lost / n, won / n, limit)
    as_seen = (lost + won) / n - seen**2
    return max(1, math.ceil(((Z * math.sqrt(at_limit) + _Z80 * math.sqrt(as_seen)) / (limit - seen)) ** 2))


def fewest_images(limit: float) -> int | None:
    """Give the fewest images that can show a share of at most `limit` to be lost: those where none changed.

    Args:
        limit: Share that may be lost, in 0..1.

    Returns:
        Images; None for a limit of 0 or below, which no number of images shows.
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
    """Give Wilson's 95 % interval of a share, hits / n (Journal of the American Statistical Association 22, 1927)."""
    share, weight = hits / n, Z * Z / n
    center = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, center - half), min(1.0, center + half)


def _adjusted_wald(lost: int, won: int, n: int) -> tuple[float, float]:
    """Give center and half width of Bonett and Price's interval: Wald's, with one image added to each count."""
    p, q = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    return p - q, Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))


def _variance(lost: float, won: float, drop: float) -> float:
    """Give the variance of one image's loss if the share lost were `drop`: Tango's equation for the share won, q.

    2 q² - (lost + won - (2 - lost + won) drop) q - won drop (1 - drop) = 0;  variance = 2 q + drop (1 - drop)
    """
    b = -lost - won + (2 - lost + won) * drop
    c = -won * drop * (1 - drop)
    q = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return 2 * q + drop * (1 - drop)


def _score(lost: int, won: int, n: int, drop: float) -> float:
    """Give Tango's statistic: how many deviations the drop seen lies above `drop`."""
    distance = (lost - won) / n - drop
    variance = _variance(lost / n, won / n, drop)
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance * math.sqrt(n / variance)


def _root(lost: int, won: int, n: int, between: tuple[float, float], level: float) -> float:
    """Find where the statistic, which falls as the drop grows, crosses `level`."""
    low, high = between
    for _ in range(60):
        middle = (low + high) / 2
        if _score(lost, won, n, middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
