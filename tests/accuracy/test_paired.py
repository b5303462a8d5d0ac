"""Paired statistics: worked examples of their papers, coverage by simulation, and how many images would tell."""

import math

import numpy as np
import pytest

from deploy_kit.accuracy import paired
from deploy_kit.records.parity import Drop


def simulated(n: int, lost: float, won: float, draws: int = 20_000) -> tuple[float, float]:
    """Give the share of intervals that hold the true drop, and of those whose upper end misses it."""
    random = np.random.default_rng(0)
    tables, times = np.unique(random.multinomial(n, [lost, won, 1 - lost - won], draws), axis=0, return_counts=True)
    ends = np.array([paired.drop_interval(int(b), int(c), n) for b, c, _ in tables])
    held = (ends[:, 0] <= lost - won) & (lost - won <= ends[:, 1])
    return float((held * times).sum() / draws), float(((ends[:, 1] < lost - won) * times).sum() / draws)


def drop(points: float, high: float) -> Drop:
    return Drop(what="top-1", points=points, low=-high, high=high)


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (1, 9, 22 / 1024), (6, 6, 1.0)])
def test_mcnemar_is_a_fair_coin(lost: int, won: int, p: float) -> None:
    assert paired.mcnemar_p(lost, won) == pytest.approx(p, rel=1e-9)


def test_mcnemar_of_a_table_of_the_literature() -> None:
    # Agresti, Categorical Data Analysis, table 11.1: approval ratings, 86 against 150: z² = 17.36.
    assert paired.mcnemar_p(86, 150) == pytest.approx(3.7e-5, rel=0.05)


def test_mcnemar_of_many_is_still_a_number() -> None:
    assert paired.mcnemar_p(5000, 5000) == pytest.approx(1, abs=1e-9)
    assert 0 < paired.mcnemar_p(4600, 5400) < 1e-14


def test_wilson_of_a_worked_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3: 15 of 148 and 81 of 263.
    assert paired.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert paired.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_upper_end_where_nothing_changed_is_the_score_bound() -> None:
    # Tango (1998), section 5: with no discordant pair, the bounds are ± z² / (n + z²).
    z2 = paired.Z**2

    low, high = paired.drop_interval(0, 0, 100)

    assert (low, high) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))


def test_the_interval_is_no_narrower_than_the_adjusted_wald() -> None:
    # Bonett and Price (2012): (b + 1) / (n + 2) - (c + 1) / (n + 2), here 10 and 4 of 100.
    p, q = 11 / 102, 5 / 102
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 102)

    low, high = paired.drop_interval(10, 4, 100)

    assert low <= p - q - half + 1e-6
    assert high >= p - q + half - 1e-6


def test_exchanging_the_two_mirrors_the_interval() -> None:
    low, high = paired.drop_interval(7, 2, 300)

    assert paired.drop_interval(2, 7, 300) == pytest.approx((-high, -low))


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 1000, 10_000])
@pytest.mark.parametrize("changed", [0, 1, 3, 6, 10, 30])
@pytest.mark.parametrize("share_lost", [0.5, 0.75, 1.0])
def test_the_interval_covers_and_its_upper_end_is_honest(n: int, changed: int, share_lost: float) -> None:
    lost, won = changed / n * share_lost, changed / n * (1 - share_lost)

    covered, missed = simulated(n, lost, won)

    assert covered >= 0.94
    assert missed <= 0.03


def test_walds_interval_would_not_pass_that() -> None:
    # Where one image in 1,000 changes, a third of all samples sees none, and Wald's interval is a point.
    random = np.random.default_rng(0)
    drawn = random.binomial(1000, 0.001, 20_000)
    share = drawn / 1000
    half = 1.96 * np.sqrt((share - share**2) / 1000)

    assert (np.abs(share - 0.001) <= half).mean() < 0.7


@pytest.mark.parametrize(
    ("found", "limit", "answer"),
    [
        (drop(0.1, 0.2), 0.3, "kept"),
        (drop(0.1, 0.3), 0.3, "kept"),
        (drop(0.1, 0.4), 0.3, "too few images to tell"),
        (drop(0.4, 0.5), 0.3, "not kept"),
        (drop(math.nan, math.nan), 0.3, "not kept"),
    ],
)
def test_a_limit_has_three_answers(found: Drop, limit: float, answer: str) -> None:
    assert found.answer(limit) == answer


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "won", "limit"), [(6, 4, 0.005), (20, 20, 0.003), (3, 0, 0.008)])
def test_the_number_of_images_needed_keeps_the_limit_four_times_in_five(lost: int, won: int, limit: float) -> None:
    n = paired.images_needed(lost, won, 1000, limit)
    assert n is not None
    random = np.random.default_rng(0)
    rates = [lost / 1000, won / 1000, 1 - (lost + won) / 1000]
    tables = random.multinomial(n, rates, 4000)

    kept = [paired.drop_interval(int(b), int(c), n)[1] <= limit for b, c, _ in tables]

    assert 0.75 <= np.mean(kept) <= 0.87


def test_where_nothing_changed_the_number_needed_is_that_of_the_score_bound() -> None:
    n = paired.images_needed(0, 0, 100, 0.003)

    assert n is not None
    assert paired.drop_interval(0, 0, n)[1] <= 0.003 < paired.drop_interval(0, 0, n - 1)[1]


def test_no_number_of_images_keeps_a_limit_that_is_the_drop_itself() -> None:
    assert paired.images_needed(5, 2, 1000, 0.003) is None


def test_a_drop_counts_images_and_says_how_many_would_tell() -> None:
    before = np.array([True] * 95 + [False] * 5)
    after = before.copy()
    after[[0, 1, 99]] = [False, False, True]

    found = paired.top1_drop(before, after, 2.0)

    assert (found.points, found.lost, found.won) == (1.0, 2, 1)
    assert found.needed == paired.images_needed(2, 1, 100, 0.02)


def test_a_limit_that_is_settled_needs_no_more_images() -> None:
    hits = np.ones(1000, bool)

    assert paired.top1_drop(hits, hits, 1.0).needed is None


@pytest.mark.parametrize("limit", [0.001, 0.003, 0.03, 0.5])
def test_the_fewest_images_that_show_a_limit_are_the_first_whose_interval_keeps_it(limit: float) -> None:
    n = paired.fewest_images(limit)

    assert n is not None
    assert paired.drop_interval(0, 0, n)[1] <= limit < paired.drop_interval(0, 0, n - 1)[1]


def test_no_number_of_images_shows_that_nothing_is_lost() -> None:
    assert paired.fewest_images(0.0) is None


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (0, 1), (0, 0)])
def test_no_share_is_beyond_all_images(lost: int, won: int) -> None:
    low, high = paired.drop_interval(lost, won, 1)

    assert -1 <= low <= high <= 1
