"""The range of each activation by method: per channel or per tensor, with what readers and unseen images add to it."""

from types import ModuleType

import numpy as np
import pytest
from dense_graphs import Sketch, batches, planned, quantized, run

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import RecipeError
from deploy_kit.quantization.int8 import range_selection
from deploy_kit.quantization.int8.effective_range import Interval
from deploy_kit.quantization.int8.range_selection import RangeMethod, RangeMovement, RangeTarget
from deploy_kit.quantization.ranges import Channels
from deploy_kit.quantization.ranges.histogram import Histogram
from deploy_kit.quantization.ranges.thresholds import Method
from deploy_kit.quantization.schemes import int8_portable, int8_tensorrt

BY_HISTOGRAM: tuple[Method, ...] = ("percentile", "entropy", "mse")
each_method = pytest.mark.parametrize("method", BY_HISTOGRAM)
EVERYTHING = 10**9  # images, so many that nothing is left unseen


def activation(n: int = 20_000) -> np.ndarray:
    """Draw (1, 3, n): a normal channel, one of zeros, one ten times as loud with a tail."""
    x = np.random.default_rng(0).standard_normal((1, 3, n)).astype(np.float32)
    x[0, 1] = 0
    x[0, 2] = 10 * np.random.default_rng(1).standard_t(3, n)
    return x


def summed_up(x: np.ndarray) -> tuple[Channels, dict[str, Histogram]]:
    wide = x.astype(np.float64)
    channels = Channels(low=wide.min((0, 2)), high=wide.max((0, 2)), mean=wide.mean((0, 2)), std=wide.std((0, 2)))
    histogram = Histogram.empty(x.shape[1])
    histogram.add([(x, channels.low, channels.high)])
    return channels, {"x": histogram}


def target(*, by_channel: bool = True, useful: Interval | None = None) -> RangeTarget:
    return RangeTarget(name="x", useful=useful, by_channel=by_channel)


def test_extremes_are_moved_out_by_the_slack_alone() -> None:
    channels, histograms = summed_up(activation())

    low, high = range_selection.choose_range(target(), channels, histograms, RangeMethod(), 64)

    np.testing.assert_allclose(high, channels.high + 0.3 * (channels.high - channels.mean))
    np.testing.assert_allclose(low, channels.low - 0.3 * (channels.mean - channels.low))


@each_method
def test_a_range_lies_within_what_was_seen_where_nothing_is_left_unseen(method: Method) -> None:
    channels, histograms = summed_up(activation())

    low, high = range_selection.choose_range(target(), channels, histograms, RangeMethod(method=method), EVERYTHING)

    slightly = 1e-3 * (channels.high - channels.low)
    assert (low >= channels.low - slightly).all()
    assert (high <= channels.high + slightly).all()
    assert low[1] == high[1] == 0
    assert high[2] < channels.high[2] - slightly[2]


@each_method
def test_few_images_move_ends_out(method: Method) -> None:
    channels, histograms = summed_up(activation())

    few, many = (
        range_selection.choose_range(target(), channels, histograms, RangeMethod(method=method), n)[1]
        for n in (16, 4096)
    )

    assert few[0] > many[0]


@each_method
def test_one_range_for_a_tensor_is_that_of_all_its_values(method: Method) -> None:
    x = activation()
    channels, histograms = summed_up(x)

    low, high = range_selection.observed_range(
        target(by_channel=False), channels, histograms, RangeMethod(method=method)
    )

    merged = summed_up(x.reshape(1, 1, -1))
    wanted = range_selection.observed_range(target(), *merged, RangeMethod(method=method))
    assert [low.min(), high.max()] == pytest.approx([wanted[0][0], wanted[1][0]])


@each_method
@pytest.mark.parametrize("by_channel", [True, False])
def test_an_end_that_the_readers_set_is_exact(method: Method, by_channel: bool) -> None:
    channels, histograms = summed_up(activation())
    useful = Interval(low=np.array([0.25, -np.inf, -1.0]), high=np.array([np.inf, np.inf, 2.0]))

    low, high = range_selection.choose_range(
        target(useful=useful, by_channel=by_channel), channels, histograms, RangeMethod(method=method), 512
    )

    assert (low[0], low[2], high[2]) == (0.25, -1.0, 2.0)


@each_method
def test_a_channel_that_no_reader_tells_apart_has_one_point_that_was_seen(method: Method) -> None:
    channels, histograms = summed_up(activation())
    never = Interval(low=np.full(3, np.inf), high=np.full(3, -np.inf))

    low, high = range_selection.choose_range(
        target(useful=never), channels, histograms, RangeMethod(method=method), 512
    )

    np.testing.assert_array_equal(low, high)
    assert ((low >= channels.low) & (low <= channels.high)).all()


@pytest.mark.parametrize(("n_images", "share"), [(16, 0.5), (64, 0.3), (512, 0.17), (10**8, 0.1)])
def test_slack_shrinks_with_the_images(n_images: int, share: float) -> None:
    assert range_selection.range_slack(n_images) == pytest.approx(share, abs=0.005)


def test_movement_is_counted_by_channels_that_have_a_range() -> None:
    before = {"a": (np.zeros(4), np.array([9.0, 10.0, 10.0, 0.0]))}
    after = {"a": (np.array([0.0, -2.0, 0.0, 0.0]), np.array([10.0, 8.0, 10.0, 0.0]))}

    # 1/10, 2/10 and 0; the fourth holds one point.
    found = range_selection.range_movement(before, after)

    assert found.median == pytest.approx(0.1)
    assert found.most == pytest.approx(0.19)


@pytest.mark.parametrize(
    ("median", "most", "settled"), [(0.009, 0.19, True), (0.011, 0.19, False), (0.009, 0.21, False)]
)
def test_settled_is_below_both_bounds(median: float, most: float, settled: bool) -> None:
    assert RangeMovement(median=median, most=most).settled is settled


@pytest.mark.parametrize("share", [0.0, 50.0, 100.1, float("nan")])
def test_a_percentile_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="percentile: expected a number above 50 and at most 100, found") as caught:
        int8_portable.Int8PortableOptions(method="percentile", percentile=share)

    assert caught.value.hint == "it is the share of all values that is encoded, e.g. 99.99"


@each_method
def test_a_method_decides_the_grid_of_a_tensor(method: Method) -> None:
    sketch = Sketch()
    x = sketch.images(64)
    x[5, 0, 1, 1] = 60
    model = sketch.model(sketch.head(sketch.norm(sketch.conv("x", 4, 3, pad=1))))

    by_extremes, by_method = (planned(model, x, ranging=RangeMethod(method=chosen)) for chosen in ("minmax", method))

    (name,) = (value.name for value in by_extremes.grids if value.name.startswith("relu"))
    scales = [
        next(grid.scale for value, grid in made.grids.items() if value.name == name)
        for made in (by_extremes, by_method)
    ]
    assert scales[1] < scales[0]
    # The input is what its pixels are: it is never cut.
    inputs = [made.grids[made.model.graph.inputs[0]] for made in (by_extremes, by_method)]
    assert inputs[0] == inputs[1]


@pytest.mark.slow
@each_method
@pytest.mark.parametrize(("scheme", "floor_db"), [(int8_portable, 30), (int8_tensorrt, 50)])
def test_networks_with_dead_constant_and_loud_channels_stay_near(
    method: Method, scheme: ModuleType, floor_db: float
) -> None:
    sketch = Sketch()
    stem = sketch.stem(6, gain=[1, 0, 1e-6, 10, 1, 0], bias=[0, 0, 0, 1, 3, 5])
    model = sketch.model(sketch.head(sketch.norm(sketch.block(stem))))
    x = sketch.images(40)
    options = {"rest": "fp32"} if scheme is int8_tensorrt else {}

    made = quantized(model, x, scheme, method=method, **options)

    # Entropy cuts the heavy tail of the pooled map, which is on one grid: that is the method.
    floor_db = 15 if (method, scheme) == ("entropy", int8_portable) else floor_db
    assert metrics.sqnr_db(run(model, x)[0], run(made, x)[0]) > floor_db


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", *BY_HISTOGRAM])
def test_a_huge_outlier_gives_finite_numbers(method: Method) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network(gamma=1.0))
    x = sketch.images(40)
    x[7, 0, 2, 2] = 1e30

    made = quantized(model, x, method=method)

    assert np.isfinite(run(made, sketch.images(4, seed=5))[0]).all()
    assert len(list(batches(x))) == 40
