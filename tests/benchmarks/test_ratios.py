"""The arithmetic of ratios, against an example worked by hand and against what a bootstrap must do."""

import numpy as np
import pytest

from benchmarks import ratios

# Two recompiles × three rounds × two runs; fastest of each turn: 8 6 9 / 10 12 4 and 4 2 3 / 5 4 4.
BASELINE = (((9.0, 8.0), (6.0, 7.0), (9.0, 9.5)), ((10.0, 11.0), (13.0, 12.0), (4.0, 5.0)))
CANDIDATE = (((4.0, 5.0), (2.0, 2.5), (3.0, 9.0)), ((5.0, 6.0), (4.0, 9.0), (4.0, 4.5)))


def test_a_turn_counts_by_its_fastest_run() -> None:
    assert ratios.turns_ms(BASELINE).tolist() == [[8, 6, 9], [10, 12, 4]]


def test_ratio_is_the_median_over_all_rounds() -> None:
    # 8/4 6/2 9/3 10/5 12/4 4/4 = 2 3 3 2 3 1: median 2.5
    ratio, low, high = ratios.interval(BASELINE, CANDIDATE)

    assert ratio == 2.5
    assert 1 <= low <= ratio <= high <= 3


def test_scale_multiplies_ratio_and_interval() -> None:
    plain = np.array(ratios.interval(BASELINE, CANDIDATE))

    assert np.allclose(ratios.interval(BASELINE, CANDIDATE, scale=0.5), plain / 2)


def test_least_is_the_fastest_run_of_all() -> None:
    assert ratios.least_ms(BASELINE) == 4.0


def test_rounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not the same rounds: \(2, 3\) and \(1, 3\)"):
        ratios.interval(BASELINE, CANDIDATE[:1])


def test_interval_of_equal_rounds_has_no_width() -> None:
    same = (((4.0,), (4.0,)), ((4.0,), (4.0,)))

    assert ratios.interval(same, same) == (1.0, 1.0, 1.0)


def test_a_slow_recompile_widens_the_interval_more_than_slow_rounds() -> None:
    """The same twelve ratios, half of them halved: by recompile, or spread over the rounds of each."""
    base = (((8.0,),) * 6,) * 2
    by_recompile = (((4.0,),) * 6, ((8.0,),) * 6)
    by_round = (((4.0,), (8.0,)) * 3,) * 2

    _, low_a, high_a = ratios.interval(base, by_recompile)
    _, low_b, high_b = ratios.interval(base, by_round)

    assert (low_a, high_a) == (1.0, 2.0)
    assert high_b - low_b <= high_a - low_a


@pytest.mark.slow
def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """A true ratio of 2 with noise of rounds and of recompiles: 95 % intervals of 8 recompiles hold it mostly."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        candidate = 4 * np.exp(generator.normal(0, 0.05, (8, 1, 1)) + generator.normal(0, 0.05, (8, 6, 1)))
        base = tuple(((8.0,),) * 6 for _ in range(8))
        samples = tuple(tuple(tuple(turn) for turn in rounds) for rounds in candidate.tolist())
        _, low, high = ratios.interval(base, samples, seed=seed)
        covered += low <= 2 <= high
    assert covered >= 85


def test_fastest_is_judged_round_by_round() -> None:
    """B has the fastest single run, in a quiet round; A is ahead of it in two rounds of three."""
    samples = {
        "a": (((4.0,), (40.0,), (8.0,)),),
        "b": (((3.0,), (50.0,), (9.0,)),),
        "c": (((5.0,), (60.0,), (10.0,)),),
    }

    assert ratios.fastest(samples, ("a", "b", "c")) == "a"
    assert ratios.fastest(samples, ("b", "c")) == "b"
