"""Statistics of latency against known truths: machines slow for a while, spikes, steps, no difference."""

import math
import statistics

import numpy as np
import pytest

from deploy_kit.measure import latency

ROUNDS, RUNS = 12, 60


def wandering(generator: np.random.Generator, n: int) -> np.ndarray:
    """Give run times of a machine whose speed is autocorrelated (AR(1), 0.995), with jitter and rare spikes: (n,)."""
    noise, speed = generator.normal(0, 0.004, n), np.empty(n)
    speed[0] = generator.normal(0, 0.04)
    for i in range(1, n):
        speed[i] = 0.995 * speed[i - 1] + noise[i]
    spikes = np.where(generator.random(n) < 0.02, generator.exponential(0.5, n), 0)
    return np.exp(speed + generator.normal(0, 0.01, n) + spikes)


def raced(seed: int, factor: float = 1.0) -> tuple[list[float], list[float]]:
    """Give the medians by round of two engines in turns, the first `factor` times as slow: what `bench` sees."""
    generator = np.random.default_rng(seed)
    times = wandering(generator, 2 * ROUNDS * RUNS).reshape(ROUNDS, 2, RUNS)
    slow, fast = list[float](), list[float]()
    for turns in times:
        first = int(generator.integers(2))
        slow.append(factor * float(np.median(turns[first])))
        fast.append(float(np.median(turns[1 - first])))
    return slow, fast


def shown(seed: int, factor: float = 1.0) -> bool:
    _, low, high = latency.ratio_in_turns(*raced(seed, factor))
    return not low <= 1 <= high


@pytest.mark.slow
def test_two_identical_engines_are_within_noise_in_95_of_100_runs() -> None:
    wrong = [sum(shown(seed) for seed in range(start, start + 100)) for start in range(0, 1000, 100)]

    # 95 of 100 over a thousand runs, and in no hundred worse than chance makes of 5 % (p < 0.001).
    assert sum(wrong) <= 50
    assert max(wrong) <= 13


@pytest.mark.slow
def test_a_bootstrap_over_a_dozen_rounds_would_call_more_noise_a_difference() -> None:
    def bootstrap(seed: int) -> bool:
        ratios = np.divide(*raced(seed))
        picks = np.random.default_rng(seed).integers(0, ROUNDS, (1000, ROUNDS))
        low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
        return not low <= 1 <= high

    assert sum(map(bootstrap, range(1000))) > sum(map(shown, range(1000)))


def test_five_percent_are_found() -> None:
    assert sum(shown(seed, 1.05) for seed in range(100)) >= 95


def test_the_ratio_is_that_of_the_engines() -> None:
    ratios = [latency.ratio_in_turns(*raced(seed, 1.42))[0] for seed in range(100)]

    assert statistics.median(ratios) == pytest.approx(1.42, rel=0.01)


@pytest.mark.parametrize(("n", "cut"), [(6, 0), (12, 2), (20, 5), (25, 7)])
def test_the_interval_lies_between_the_order_statistics_of_the_sign_test(n: int, cut: int) -> None:
    # Ranks of the 95 % interval of a median (Conover, Practical Nonparametric Statistics, table A3).
    _, low, high = latency.ratio_in_turns([float(i) for i in range(1, n + 1)], [1.0] * n)

    assert (low, high) == (1 + cut, n - cut)


def test_five_rounds_carry_no_interval() -> None:
    assert latency.ratio_in_turns([2.0] * 5, [1.0] * 5) == (2.0, 0.0, math.inf)


def test_a_slow_window_that_both_meet_cancels() -> None:
    slow, fast = [20.0, 20.0, 40.0, 40.0, 20.0, 20.0], [10.0, 10.0, 20.0, 20.0, 10.0, 10.0]

    assert latency.ratio_in_turns(slow, fast) == (2.0, 2.0, 2.0)


def autoregressive(phi: float, n: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    noise, series = generator.normal(size=n), np.empty(n)
    series[0] = noise[0]
    for i in range(1, n):
        series[i] = phi * series[i - 1] + noise[i]
    return series


# Blocks of the circular bootstrap for the same series by arch.bootstrap.optimal_block_length, arch 8.0.0.
@pytest.mark.parametrize(
    ("phi", "n", "seed", "arch"),
    [(0.5, 500, 1, 9.52), (0.9, 1000, 2, 27.40), (0.97, 1200, 3, 63.72), (0.6, 200, 4, 7.04), (0.8, 2000, 5, 46.04)],
)
def test_blocks_are_as_long_as_those_of_another_implementation(phi: float, n: int, seed: int, arch: float) -> None:
    assert latency.block_length(autoregressive(phi, n, seed)) == pytest.approx(arch, abs=2)


def test_independent_samples_are_drawn_in_short_blocks() -> None:
    assert latency.block_length(autoregressive(0.0, 1000, 0)) <= 5


def test_equal_samples_are_drawn_one_by_one() -> None:
    assert latency.block_length(np.full(100, 3.0)) == 1


def test_runs_apart_give_the_ratio_of_their_medians() -> None:
    assert latency.ratio_apart([2.0] * 100, [1.0] * 100) == (2.0, 2.0, 2.0)


def test_autocorrelation_widens_the_interval_of_runs_apart() -> None:
    slow = np.exp(0.01 * autoregressive(0.97, 1200, 1))
    shuffled = np.random.default_rng(0).permutation(slow)

    widths = [np.diff(latency.ratio_apart(series, [1.0] * 10)[1:])[0] for series in (slow, shuffled)]

    assert widths[0] > 2 * widths[1]


def test_the_interval_of_runs_apart_is_the_same_each_time() -> None:
    series = autoregressive(0.9, 500, 2) + 10

    assert latency.ratio_apart(series, series[::-1]) == latency.ratio_apart(series, series[::-1])


@pytest.mark.parametrize(("factor", "word"), [(1.2, "slower"), (1 / 1.2, "faster")])
def test_a_throttle_in_the_middle_is_not_steady(factor: float, word: str) -> None:
    jitter = [1.0 + 0.01 * (-1) ** i for i in range(12)]

    said = latency.describe_drift(jitter[:7] + [factor * value for value in jitter[7:]])

    assert said.endswith(f"{word} from round 8 of 12 on")
    assert 15 <= int(said.split()[0]) <= 23


def test_a_trend_is_not_steady() -> None:
    assert "slower from round" in latency.describe_drift([1.0 + 0.03 * i for i in range(12)])


def test_a_step_too_small_to_matter_is_steady() -> None:
    assert latency.describe_drift([1.0] * 6 + [1.04] * 6) == ""


def test_one_slow_round_is_steady() -> None:
    assert latency.describe_drift([1.0, 1.01, 0.99, 1.0, 3.0, 1.01, 1.0, 0.99, 1.0, 1.01, 0.99, 1.0]) == ""


def test_a_steady_machine_is_hardly_ever_called_unsteady() -> None:
    generator = np.random.default_rng(0)

    said = [latency.describe_drift(list(np.exp(generator.normal(0, 0.1, 12)))) for _ in range(200)]

    assert sum(map(bool, said)) <= 6  # 1 % of 200, and what chance adds to it


@pytest.mark.parametrize("medians", [[1.0], [1.0, 9.0], [1.0, 1.0, 9.0, 9.0]])
def test_a_few_rounds_show_nothing(medians: list[float]) -> None:
    assert latency.describe_drift(medians) == ""
