"""What the runtimes' own tools say is read right, and agreement is an answer that can be no."""

import pytest

from benchmarks import agreement, loop
from benchmarks.agreement import Pair
from deploy_kit.base.errors import StageError


@pytest.mark.parametrize(
    ("said", "ms"),
    [("[ INFO ]    Median:        312.34 us", 0.31234), ("[ INFO ]    Median:        31.20 ms", 31.2)],
)
def test_the_median_of_benchmark_app_is_read_in_its_unit(said: str, ms: float) -> None:
    assert agreement.read_median_ms(said) == pytest.approx(ms)


def test_a_tool_that_gives_no_median_is_a_failure() -> None:
    with pytest.raises(StageError, match="benchmark_app gave no median: cannot open"):
        agreement.read_median_ms("cannot open")


@pytest.mark.parametrize(("theirs", "word"), [(1.0, "agree"), (1.04, "agree"), (1.06, "do NOT agree")])
def test_agreement_is_within_five_percent(theirs: float, word: str) -> None:
    pair = Pair(subject="net", tool="tool", ours_ms=(1.0,) * 8, theirs_ms=(theirs,) * 8, statistic="mean", runs=1)

    assert f"| {word} " in agreement.render(agreement.Agreement(pairs=(pair,)))


@pytest.mark.parametrize(
    ("theirs", "words"), [(1.0, "within the limit, not its interval"), (1.1, "beyond the limit, not shown")]
)
def test_a_wide_interval_is_no_yes_and_no_no(theirs: float, words: str) -> None:
    ours = (0.5, 0.6, 0.9, 1.0, 1.0, 1.1, 1.8, 2.0)
    pair = Pair(subject="net", tool="tool", ours_ms=ours, theirs_ms=(theirs,) * 8, statistic="mean", runs=1)

    assert f"| {words} " in agreement.render(agreement.Agreement(pairs=(pair,)))


def test_a_tool_that_is_absent_has_its_reason() -> None:
    pair = Pair(subject="net", tool="benchmark_app", why="benchmark_app is not installed")

    assert "benchmark_app is not installed" in agreement.render(agreement.Agreement(pairs=(pair,)))


def test_a_loop_above_the_limit_is_told() -> None:
    row = loop.Cost(name="closed-loop", iteration_us=21.0, sample_us=0.1, n=10)

    assert "NOT kept: 20 µs" in loop.render(loop.Loop(rows=(row,)))


def test_the_loop_is_timed_over_a_session_that_does_nothing() -> None:
    cost = loop._cost("closed loop", "closed-loop", ((loop.Nothing().run,),))

    assert (cost.n, cost.iteration_us > 0) == (20_000, True)
