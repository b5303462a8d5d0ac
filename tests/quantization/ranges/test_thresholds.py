"""Ends of ranges by method: against sorted values, ONNX Runtime's collector, a plain loop, and quantizing itself."""

import contextlib
import io
import math

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from deploy_kit.quantization.ranges import thresholds
from deploy_kit.quantization.ranges.histogram import Histogram
from deploy_kit.quantization.ranges.thresholds import Method, Values

N = 60_000
SHAPES = ("normal", "laplace", "behind a ReLU", "heavy tails", "uniform", "skewed", "beside zero")
every_shape = pytest.mark.parametrize("shape", SHAPES)


def draw(shape: str) -> np.ndarray:
    generator = np.random.default_rng(SHAPES.index(shape))
    found = {
        "normal": lambda: generator.standard_normal(N),
        "laplace": lambda: generator.laplace(size=N),
        "behind a ReLU": lambda: np.maximum(generator.standard_normal(N) - 0.5, 0),
        "heavy tails": lambda: generator.standard_t(3, N),
        "uniform": lambda: generator.uniform(-1, 1, N),
        "skewed": lambda: generator.gamma(2, 1, N) - 1,
        "beside zero": lambda: generator.standard_normal(N) - 20,
    }[shape]()
    return found.astype(np.float32)


def seen(*channels: np.ndarray, limits: tuple[np.ndarray, np.ndarray] | None = None) -> Values:
    x = np.stack(channels)[None]
    low, high = x.min((0, 2)), x.max((0, 2))
    histogram = Histogram.empty(len(channels))
    for part in np.array_split(x, 7, axis=2):
        histogram.add([(part, part.min((0, 2)), part.max((0, 2)))])
    return thresholds.values(histogram, low.astype(np.float64), high.astype(np.float64), limits)


def ends(x: np.ndarray, method: Method, percentile: float = 99.9) -> tuple[float, float, float]:
    """Give both ends and the width of a bin."""
    values = seen(x)
    low, high = thresholds.ends(values, method, percentile)
    return float(low[0]), float(high[0]), float(values.edges[0, 1] - values.edges[0, 0])


def of_onnxruntime(x: np.ndarray, method: str, bins: int, levels: int = 128) -> tuple[float, float]:
    collector = HistogramCollector(
        method=method, symmetric=False, num_bins=bins, num_quantized_bins=levels, percentile=99.9, scenario="same"
    )
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": [x]})
        low, high = collector.compute_collection_result()["x"][:2]
    return float(low), float(high)


def error_of(x: np.ndarray, low: float, high: float) -> float:
    """Quantize to 8 bits over this range, with 0 on the grid, and measure the mean squared error."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    wide = x.astype(np.float64)
    return float(np.mean((wide - (np.clip(np.rint(wide / scale) + zero, 0, 255) - zero) * scale) ** 2))


@every_shape
def test_percentiles_are_those_of_the_sorted_values_within_a_bin(shape: str) -> None:
    x = draw(shape)

    low, high, width = ends(x, "percentile")

    ordered, k = np.sort(x.astype(np.float64)), round(0.0005 * N)
    # 30 values lie below: the end may lie anywhere from the 30th to the 31st.
    assert ordered[k - 1] - width <= low <= ordered[k] + width
    assert ordered[-1 - k] - width <= high <= ordered[-k] + width


@every_shape
def test_percentiles_are_those_of_onnx_runtime_within_two_bins(shape: str) -> None:
    x = draw(shape)

    low, high, width = ends(x, "percentile")

    theirs = max(width, 2 * float(np.abs(x).max()) / 2048)
    assert [low, high] == pytest.approx(of_onnxruntime(x, "percentile", 2048), abs=2 * theirs)


def test_comparison_of_percentiles_notices_another_share() -> None:
    _, high, width = ends(draw("normal"), "percentile", 99.8)

    assert abs(high - np.quantile(draw("normal"), 0.9995)) > width


def test_all_of_the_values_are_the_range() -> None:
    x = draw("laplace")

    assert ends(x, "percentile", 100.0)[:2] == pytest.approx((x.min(), x.max()))
    assert ends(x, "minmax")[:2] == (x.min(), x.max())


def divergences(counts: np.ndarray, stride: int) -> dict[int, float]:
    """Give KL by the number of bins kept: NVIDIA's definition, bin by bin."""
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    bins = bins[: np.flatnonzero(bins)[-1] + 1]
    found = {}
    for kept in range(128, len(bins) + 1, stride):
        level = np.digitize(np.arange(kept), np.linspace(0, kept, 129)) - 1
        p = bins[:kept].copy()
        p[-1] += bins[kept:].sum()
        q = np.zeros(kept)
        for number in range(128):
            mine = level == number
            there = mine & (p > 0)
            if there.any():
                q[there] = bins[:kept][mine].sum() / there.sum()
        p, q = p / p.sum(), q / q.sum()
        there = p > 0
        found[kept] = math.inf if (q[there] == 0).any() else float((p[there] * np.log(p[there] / q[there])).sum())
    return found


@pytest.mark.slow
@every_shape
def test_entropy_finds_the_threshold_of_a_plain_loop(shape: str) -> None:
    values = seen(draw(shape))
    width = values.edges[0, 1] - values.edges[0, 0]

    found = thresholds._entropy(values, 0.0)[1][0] - values.anchor[0]

    lost = divergences(thresholds._distances(values, np.array([width]))[0], thresholds._STRIDE)
    least = min(lost.values())
    assert lost[round(found / width)] == pytest.approx(least, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_entropy_and_onnx_runtime_find_the_end_of_a_uniform_bulk() -> None:
    """Where the bulk ends sharply both must stop there.

    On smooth tails the definitions differ: ONNX Runtime puts what 128 levels do not divide into the last one.
    """
    generator = np.random.default_rng(3)
    x = np.concatenate([generator.uniform(-1, 1, N), generator.uniform(-2, 2, 30)]).astype(np.float32)
    x[:2] = -2, 2

    low, high, width = ends(x, "entropy")

    theirs = of_onnxruntime(x, "entropy", 4096, 256)
    assert [low, high] == pytest.approx(theirs, abs=2 * width)
    assert high == pytest.approx(1, abs=2 * width)


def test_entropy_without_tails_cuts_nothing() -> None:
    x = draw("uniform")

    assert ends(x, "entropy")[:2] == pytest.approx((x.min(), x.max()), abs=0.02)


@every_shape
def test_mse_is_within_two_per_cent_of_brute_force(shape: str) -> None:
    x = draw(shape)
    low, high, _ = ends(x, "mse")
    # A grid must hold 0: beside zero its range is not the channel's own, and the yardstick is centered likewise.
    x = x - np.float32(np.rint(x.mean())) if shape == "beside zero" else x
    shift = 20.0 if shape == "beside zero" else 0.0

    reach = float(x.max() - x.min())
    best = min(
        error_of(x, float(x.min()) + a * reach, float(x.min()) + b * reach)
        for a in np.linspace(0, 0.45, 10)
        for b in np.linspace(0.5, 1, 20)
    )
    assert error_of(x, low + shift, high + shift) <= 1.02 * best


def test_mse_gains_on_heavy_tails() -> None:
    x = draw("heavy tails")
    low, high, _ = ends(x, "mse")

    assert error_of(x, low, high) < 0.9 * error_of(x, float(x.min()), float(x.max()))


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_what_readers_cannot_tell_apart_counts_as_the_limit(method: Method) -> None:
    """Cut at 0.5 from below, a channel's ends are those of max(x, 0.5)."""
    x = draw("normal")
    limit = np.array([0.5]), np.array([np.inf])

    found = thresholds.ends(seen(x, limits=limit), method, 99.9)
    wanted = thresholds.ends(seen(np.maximum(x, np.float32(0.5)), limits=limit), method, 99.9)

    assert found[0][0] == 0.5
    # The bins of what was cut first are finer: thresholds whose losses hardly differ may be exchanged.
    assert found[1][0] == pytest.approx(wanted[1][0], abs=0.03 if method == "percentile" else 0.5)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_a_channel_of_one_value_has_that_range(method: Method, value: float) -> None:
    low, high, _ = ends(np.full(100, value, np.float32), method)

    assert low == high == np.float32(value)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_channel_that_nobody_reads_has_a_finite_range(method: Method) -> None:
    never = np.array([np.inf]), np.array([-np.inf])

    low, high = thresholds.ends(seen(draw("normal"), limits=never), method, 99.9)

    assert np.isfinite([low[0], high[0]]).all()
    assert low[0] <= high[0]


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_huge_value_does_not_widen_the_range(method: Method) -> None:
    x = draw("normal")
    plain = ends(x, method)
    x[17] = 1e30

    assert ends(x, method)[:2] == pytest.approx(plain[:2], abs=2 * plain[2])


def test_the_squared_error_of_one_huge_value_is_heeded() -> None:
    x = draw("normal")
    x[17] = 1e30

    assert ends(x, "mse")[1] > 5e29


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_channels_do_not_know_of_each_other(method: Method) -> None:
    channels = [draw(shape) for shape in SHAPES]

    together = thresholds.ends(seen(*channels), method, 99.9)

    alone = [thresholds.ends(seen(channel), method, 99.9) for channel in channels]
    np.testing.assert_allclose(together[0], [low[0] for low, _ in alone], rtol=1e-12)
    np.testing.assert_allclose(together[1], [high[0] for _, high in alone], rtol=1e-12)
