"""Equalization: exact in float64, all channels in one range, and each reason to leave a group as it is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import Sketch, batches, found, planned, run

from deploy_kit.accuracy import metrics
from deploy_kit.graph import edit, onnx_file, passes
from deploy_kit.quantization.int8 import equalizable, equalize, range_selection
from deploy_kit.quantization.int8.effective_range import Interval
from deploy_kit.quantization.int8.equalize import EqualizedGroup
from deploy_kit.quantization.ranges import Channels, observe_activations

EXACT = 1e-12  # rounding of float64: parameters are kept in it, so that only the algebra is judged
initializer = edit.initializer
STORED = 1e-5  # parameters rounded to float32 as in a file: 6e-8 each, a few layers deep
MADE_MAX = ("relu_after_pool", "batchnorm_to_max")


@dataclass(frozen=True)
class Case:
    """A graph before and after."""

    model: ir.Model
    rows: tuple[EqualizedGroup, ...]
    seen: dict[ir.Value, Channels]
    means: dict[ir.Value, np.ndarray]
    before: list[np.ndarray]
    after: list[np.ndarray]
    x: np.ndarray

    @property
    def difference(self) -> float:
        """The largest of any output."""
        pairs = zip(self.before, self.after, strict=True)
        return max(metrics.relative_difference(before, after) for before, after in pairs)


def ready(model: ir.Model, names: tuple[str, ...]) -> ir.Model:
    for name in names:
        passes.CATALOGUE.get(name).apply(model)
    return onnx_file.reread(model)


def equalized(sketch: Sketch, *outputs: str, names: tuple[str, ...] = (), stored: ir.DataType | None = None) -> Case:
    """Equalize on 8 images; evaluate before and after on one three times as large.

    Parameters are kept in float64 unless they are to be `stored` in another type.
    """
    model = ready(sketch.model(*outputs), names)
    x = 3 * sketch.images(1, seed=9).astype(np.float64)
    before = tiny_graphs.evaluate(model, x)
    groups, useful = found(model)
    sources = [v for group in groups.all for v in group.sources]
    clipped = [v for g in groups.all for v in g.values if v not in sources and v.producer().op_type in ("Max", "Relu")]
    stats, means = observe_activations(
        ir.serde.serialize_model(model),
        [v.name for v in sources],
        batches(sketch.images(8)),
        means=[v.name for v in clipped],
    )
    seen, averages = {v: stats[v.name] for v in sources}, {v: means[v.name] for v in clipped}
    spans = {v: range_selection.encoded_range(seen[v], useful.get(v), 0.1) for v in sources if v.producer()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            edit,
            "initializer",
            lambda model, name, values, _: initializer(model, name, values, stored or ir.DataType.DOUBLE),
        )
        rows = equalize.equalize_channels(model, groups, seen, averages, spans)
    return Case(model, rows, seen, averages, before, tiny_graphs.evaluate(model, x), x)


def plain(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.network(),)


def mixed_signs(sketch: Sketch) -> tuple[str, ...]:
    x = sketch.block(sketch.stem(), gamma=None)
    return (sketch.head(sketch.norm(x, gamma=np.resize([1.2, -0.8, 0.5, -2.0], 14))),)


def all_negative(sketch: Sketch) -> tuple[str, ...]:
    x = sketch.block(sketch.stem(), gamma=-0.7)
    return (sketch.head(sketch.conv(sketch.norm(x, gamma=-1.3), 5)),)


def rectified_part(sketch: Sketch) -> tuple[str, ...]:
    x = sketch.concat(sketch.node("Relu", sketch.stem()), sketch.stem(4))
    return (sketch.head(sketch.conv(sketch.norm(x), 5)),)


def moved_relu(sketch: Sketch) -> tuple[str, ...]:
    pool = sketch.node("MaxPool", sketch.stem(), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return (sketch.head(sketch.norm(sketch.block(sketch.node("Relu", pool)))),)


def average_between(sketch: Sketch) -> tuple[str, ...]:
    pool = sketch.node("AveragePool", sketch.conv(sketch.norm(sketch.stem()), 6), kernel_shape=[2, 2], strides=[2, 2])
    return (sketch.head(sketch.norm(sketch.block(pool))),)


def padded_average(sketch: Sketch) -> tuple[str, ...]:
    c = sketch.stem()
    pool = sketch.node("AveragePool", c, kernel_shape=[2, 2], pads=[1] * 4, count_include_pad=1)
    return (
        sketch.head(sketch.norm(sketch.concat(pool, sketch.node("AveragePool", c, kernel_shape=[2, 2], pads=[1] * 4)))),
    )


def ceiled_average(sketch: Sketch) -> tuple[str, ...]:
    pool = sketch.node(
        "AveragePool", sketch.stem(), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1
    )
    return (sketch.head(sketch.norm(sketch.block(pool))),)


def plain_reader(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.head(sketch.conv(sketch.block(sketch.stem()), 7, strides=[2, 2])),)


def padded_reader(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.head(sketch.conv(sketch.block(sketch.stem()), 7, 3, pad=1)),)


def grouped_maker(sketch: Sketch) -> tuple[str, ...]:
    c = sketch.stem(6)
    return (sketch.head(sketch.norm(sketch.concat(c, sketch.conv(c_relu(sketch, c), 6, 3, pad=1, group=3)))),)


def c_relu(sketch: Sketch, c: str) -> str:
    return sketch.node("Relu", sketch.conv(sketch.norm(c), 6))


def new_first(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.head(sketch.norm(sketch.block(sketch.stem(), new_first=True))),)


def dead_channels(sketch: Sketch) -> tuple[str, ...]:
    dead = sketch.stem(6, gain=[0, 1, 0, 1, 0, 2], bias=[0, 0.1, -0.4, 0.2, 0.7, 0])
    return (sketch.head(sketch.norm(sketch.block(dead))),)


def mostly_dead(sketch: Sketch) -> tuple[str, ...]:
    dead = sketch.stem(20, gain=[1] + [0] * 19, bias=np.zeros(20))
    return (sketch.head(sketch.norm(sketch.concat(dead, sketch.stem(2)))),)


def no_bias(sketch: Sketch) -> tuple[str, ...]:
    weight = sketch.constant(np.random.default_rng(3).standard_normal((4, 3, 1, 1)))
    c = sketch.node("Conv", "x", weight, channels=4)
    return (sketch.head(sketch.norm(sketch.concat(c, sketch.stem(3)))),)


def grown(sketch: Sketch, x: str, n: int, group: int) -> str:
    """Add a transposed convolution to `n` channels, a ReLU behind it: weights (inputs, outputs / groups, …)."""
    rank, fan_in = len(sketch.pixels), sketch.n_channels[x]
    weight = (
        sketch.generator.standard_normal((fan_in, n // group, *[3] * rank))
        * np.geomspace(0.1, 10, n // group)[(None, slice(None), *[None] * rank)]
    )
    bias = sketch.constant(sketch.generator.standard_normal(n))
    moves = {"group": group, "strides": [2] * rank, "pads": [1] * (2 * rank)}
    return sketch.node("ConvTranspose", x, sketch.constant(weight), bias, channels=n, **moves)


def enlarged(sketch: Sketch, group: int = 1) -> tuple[str, ...]:
    """A skip concatenation: maps that a transposed convolution enlarges, joined to those of the stem."""
    small = sketch.conv(sketch.norm(sketch.stem()), 6, strides=[2] * len(sketch.pixels))
    grow = grown(sketch, sketch.concat(small, c_relu(sketch, small)), 6, group)
    return (sketch.head(sketch.norm(sketch.block(sketch.concat(grow, sketch.stem())))),)


def normed_part(sketch: Sketch) -> tuple[str, ...]:
    """A BN + ReLU that a convolution and a concatenation read: the skip of a U-Net whose encoder is a DenseNet."""
    skip = sketch.norm(sketch.block(sketch.stem()))
    return (sketch.head(sketch.conv(sketch.concat(sketch.conv(skip, 6), skip), 5)),)


def bare_norm_part(sketch: Sketch) -> tuple[str, ...]:
    norm = sketch.norm(sketch.block(sketch.stem()), relu=False)
    return (sketch.head(sketch.norm(sketch.concat(norm, sketch.stem()))),)


def gates(sketch: Sketch, c: str, n: int, pad: int = 0) -> str:
    """Squeeze and excite: a mean over pixels, a convolution, a sigmoid."""
    mean = sketch.node("GlobalAveragePool", c)
    return sketch.node("Sigmoid", sketch.conv(mean, n, 1 + 2 * pad, pad=pad) if pad else sketch.conv(mean, n))


def gated_part(sketch: Sketch) -> tuple[str, ...]:
    c = sketch.stem(6)
    return (sketch.head(sketch.norm(sketch.concat(sketch.node("Mul", gates(sketch, c, 6), c), sketch.stem()))),)


def squeezed(sketch: Sketch) -> tuple[str, ...]:
    block = sketch.block(sketch.stem())
    return (sketch.head(sketch.norm(block)), gates(sketch, block, 5))


def squeezed_and_padded(sketch: Sketch) -> tuple[str, ...]:
    block = sketch.block(sketch.stem())
    return (sketch.head(sketch.norm(block)), gates(sketch, block, 5, pad=1))


CASES: tuple[Callable[[Sketch], tuple[str, ...]], ...] = (
    plain, mixed_signs, all_negative, rectified_part, moved_relu, average_between, padded_average, ceiled_average,
    plain_reader, padded_reader, grouped_maker, new_first, dead_channels, mostly_dead, no_bias,
    enlarged, normed_part, bare_norm_part, gated_part, squeezed,
    squeezed_and_padded,
)  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
either_form = pytest.mark.parametrize("names", [(), MADE_MAX], ids=["BN", "max"])


@pytest.mark.slow
@either_form
@every_case
def test_outputs_stay_in_float64(case: Callable[[Sketch], tuple[str, ...]], names: tuple[str, ...]) -> None:
    sketch = Sketch(pixels=(9, 9))

    found = equalized(sketch, *case(sketch), names=names)

    assert found.rows and not any(row.refused for row in found.rows)
    assert found.difference < EXACT


@either_form
@every_case
def test_outputs_stay_with_parameters_as_a_file_holds_them(
    case: Callable[[Sketch], tuple[str, ...]], names: tuple[str, ...]
) -> None:
    sketch = Sketch(pixels=(9, 9))

    found = equalized(sketch, *case(sketch), names=names, stored=ir.DataType.FLOAT)

    assert found.difference < STORED


def whole(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.network(),)


@pytest.mark.parametrize("case", [whole, enlarged])
@pytest.mark.parametrize("pixels", [(9,), (5, 5, 5)], ids=["1-D", "3-D"])
@either_form
def test_outputs_stay_in_other_dimensions(
    names: tuple[str, ...], pixels: tuple[int, ...], case: Callable[[Sketch], tuple[str, ...]]
) -> None:
    sketch = Sketch(pixels=pixels)

    found = equalized(sketch, *case(sketch), names=names)

    assert not any(row.refused for row in found.rows)
    assert found.difference < EXACT


def test_each_group_of_a_transposed_convolution_scales_its_own_channels() -> None:
    """ONNX Runtime is the judge: onnx 1.23's evaluator computes no transposed convolution of several groups."""
    sketch = Sketch(pixels=(9, 9))
    model, x = sketch.model(*enlarged(sketch, group=2)), sketch.images(8)

    plan = planned(model, x)

    assert len(plan.rows) == 2 and not any(row.refused for row in plan.rows)
    assert metrics.relative_difference(run(model, x)[0], run(plan.model, x)[0]) < STORED


def test_comparison_notices_one_channel_that_is_scaled_by_a_thousandth_too_much() -> None:
    sketch = Sketch()
    case = equalized(sketch, sketch.network())
    norm = next(node for node in case.model.graph if node.op_type == "BatchNormalization")
    gamma = norm.inputs[1].const_value.numpy().copy()
    gamma[0] *= 1.001
    norm.inputs[1].const_value = ir.tensor(gamma)

    (after,) = tiny_graphs.evaluate(case.model, case.x)

    assert metrics.relative_difference(case.before[0], after) > STORED


def test_every_channel_reaches_one() -> None:
    sketch = Sketch()
    case = equalized(sketch, sketch.head(sketch.conv(sketch.block(sketch.stem()), 7)))

    for row in case.rows:
        for source in row.group.sources:
            low, high = case.seen[source].low, case.seen[source].high
            reach = np.maximum(-low, high)
            # A tenth of slack was asked for, at each end that has a sign.
            assert reach.max() <= 1 + 1e-6
            assert reach.min() > 0.8


def test_centered_channels_use_both_halves() -> None:
    sketch = Sketch()
    stem = sketch.stem(4, bias=[5, -5, 3, 0])

    case = equalized(sketch, sketch.head(sketch.conv(sketch.concat(stem, stem), 7)))

    seen = case.seen[case.rows[0].group.sources[0]]
    assert (seen.low < -0.5).all() and (seen.high > 0.5).all()


def test_channels_that_a_padded_reader_would_show_zeros_beside_are_not_shifted() -> None:
    sketch = Sketch()
    stem = sketch.stem(4, bias=[5, -5, 3, 0])

    case = equalized(sketch, sketch.head(sketch.conv(sketch.concat(stem, stem), 7, 3, pad=1)))

    seen = case.seen[case.rows[0].group.sources[0]]
    assert seen.low[0] > 0 > seen.high[1]


def test_statistics_are_those_of_the_scaled_values() -> None:
    sketch = Sketch(pixels=(9, 9))
    case = equalized(sketch, *moved_relu(sketch), stored=ir.DataType.FLOAT)
    model = case.model
    names = [*case.seen, *case.means]
    model.graph.outputs[:] = [v for v in names if v.producer()]

    values = run(onnx_file.reread(model), sketch.images(8), optimize=False)

    for watched, array in zip(model.graph.outputs, values, strict=True):
        wide = array.astype(np.float64)
        if watched in case.means:
            np.testing.assert_allclose(case.means[watched], wide.mean((0, 2, 3)), atol=1e-5)
        elif wide.ndim == 4:
            np.testing.assert_allclose(case.seen[watched].mean, wide.mean((0, 2, 3)), atol=1e-5)
            np.testing.assert_allclose(case.seen[watched].std, wide.std((0, 2, 3)), atol=1e-5)
            np.testing.assert_allclose(case.seen[watched].low, wide.min((0, 2, 3)), atol=1e-5)


def test_a_moved_relu_among_shifted_channels_becomes_a_maximum() -> None:
    sketch = Sketch(pixels=(9, 9))
    outputs = moved_relu(sketch)
    model = sketch.model(*outputs)
    n = tiny_graphs.operators(model).count("Relu")

    case = equalized(sketch, *outputs)

    assert tiny_graphs.operators(case.model).count("Relu") == n - 1
    assert tiny_graphs.operators(case.model).count("Max") == 1


def test_nearly_dead_channels_are_not_blown_up() -> None:
    sketch = Sketch()
    stem = sketch.stem(6, gain=[1, 1, 1, 1, 1, 1e-9], bias=np.zeros(6))

    case = equalized(sketch, sketch.head(sketch.norm(sketch.concat(stem, sketch.stem(2)))))

    seen = case.seen[case.rows[0].group.sources[0]]
    assert 0 < seen.high[5] - seen.low[5] < 1e-5


def test_reach_is_half_of_each_channels_range_before() -> None:
    sketch = Sketch()
    stem = sketch.stem(4, gain=[1, 10, 0.1, 0], bias=np.zeros(4))
    out = sketch.head(sketch.conv(sketch.concat(stem, stem), 7))
    convolved = run(sketch.model(stem), sketch.images(8))[0]

    (row,) = equalized(sketch, out).rows

    halves = (convolved.max((0, 2, 3)) - convolved.min((0, 2, 3))) / 2
    # A tenth more: the slack asked for.
    np.testing.assert_allclose(row.reach, 1.1 * halves, rtol=1e-5)


@pytest.mark.parametrize("case", [normed_part, bare_norm_part, gated_part, squeezed], ids=lambda case: case.__name__)
def test_no_group_with_a_concatenation_is_left_as_it_is(case: Callable[[Sketch], tuple[str, ...]]) -> None:
    sketch = Sketch()

    made = equalized(sketch, *case(sketch), names=MADE_MAX)

    assert made.rows and {row.refused for row in made.rows} == {""}
    joined = [v for v in made.seen if any(node.op_type == "Concat" for node in v.consumers())]
    reach = np.concatenate([np.maximum(made.seen[v].high, -made.seen[v].low) for v in joined])
    assert reach[reach > 0].min() > 0.5  # a channel that its ReLU never lets through has none


def refused(sketch: Sketch, *outputs: str) -> EqualizedGroup:
    found = equalized(sketch, *outputs)
    assert found.difference <= EXACT  # groups without a concatenation are equalized all the same
    return found.rows[0]


def test_input_alone_concatenated_with_itself_is_refused() -> None:
    sketch = Sketch()

    row = refused(sketch, sketch.head(sketch.conv(sketch.concat("x", "x"), 4)))

    assert row.refused == "the input makes a part of it, not a convolution"
    assert row.reach.shape == (0,)


def beside_the_input(sketch: Sketch) -> tuple[str, ...]:
    return (sketch.head(sketch.norm(sketch.concat(small(sketch), "x"))),)


def beside_a_sum(sketch: Sketch) -> tuple[str, ...]:
    total = sketch.node("Add", sketch.stem(), sketch.stem())
    return (sketch.head(sketch.norm(sketch.concat(total, small(sketch)))),)


def beside_a_sum_that_is_rectified(sketch: Sketch) -> tuple[str, ...]:
    total = sketch.node("Relu", sketch.node("Add", sketch.stem(), sketch.stem()))
    return (sketch.head(sketch.norm(sketch.concat(total, small(sketch)))),)


def beside_a_sum_under_a_padded_convolution(sketch: Sketch) -> tuple[str, ...]:
    total = sketch.node("Relu", sketch.node("Add", sketch.stem(), sketch.stem()))
    return (sketch.head(sketch.conv(sketch.concat(total, small(sketch)), 6, kernel=3, pad=1)),)


def sliced_into_a_sum(sketch: Sketch) -> tuple[str, ...]:
    """Some channels of one result are added to, and the others concatenated, as in a dual path network."""
    made = small(sketch, 10)
    added, joined = cut(sketch, made, 0, 6), cut(sketch, made, 6, 10)
    total = sketch.node("Add", added, sketch.stem())
    return (sketch.head(sketch.norm(sketch.concat(total, joined))),)


def cut(sketch: Sketch, x: str, begin: int, end: int) -> str:
    """Take some channels."""
    numbers = [sketch.integer(number) for number in (begin, end, 1)]
    return sketch.node("Slice", x, *numbers, channels=end - begin)


def small(sketch: Sketch, n: int = 6) -> str:
    """Make channels whose ranges are a few thousandths of their neighbours'."""
    return sketch.conv(sketch.norm(sketch.stem()), n, gain=1e-3)


PARTLY = (beside_the_input, beside_a_sum, beside_a_sum_that_is_rectified, sliced_into_a_sum)


@either_form
@pytest.mark.parametrize("case", PARTLY, ids=lambda case: case.__name__)
def test_channels_beside_others_that_cannot_be_scaled_are_brought_to_their_range(
    case: Callable[[Sketch], tuple[str, ...]], names: tuple[str, ...]
) -> None:
    sketch = Sketch(pixels=(9, 9))

    made = equalized(sketch, *case(sketch), names=names)

    assert made.difference < EXACT
    groups, _ = found(made.model)
    group = next(one for one in groups.all if one.concats)
    ends = {v: (made.seen[v].low, made.seen[v].high) for v in group.sources}
    free = equalizable.freedom(group, groups).channels
    scaled = np.concatenate([(high - low)[free[v]] for v, (low, high) in ends.items()])
    fixed = np.concatenate([np.stack([low, high])[:, ~free[v]] for v, (low, high) in ends.items()], axis=1)
    assert scaled.size and fixed.size
    # Without a shift the longer side of a channel reaches the end of the range.
    assert np.median(scaled) > 0.4 * (fixed.max() - fixed.min())


def test_channels_that_hardly_count_for_their_reader_come_a_part_of_the_way() -> None:
    sketch = Sketch(pixels=(9, 9))

    made = equalized(sketch, *beside_a_sum_under_a_padded_convolution(sketch))

    assert made.difference < EXACT
    groups, _ = found(made.model)
    group = next(one for one in groups.all if one.concats)
    fixed, scaled = (float(np.median(made.seen[v].high - made.seen[v].low)) for v in group.sources)
    assert 1e-3 * fixed < scaled < 0.5 * fixed


def test_what_is_left_is_counted_and_named() -> None:
    sketch = Sketch()

    row = refused(sketch, *beside_a_sum(sketch))

    assert row.refused == "6 of 12 channels, as Add makes a part of it, not a convolution"


def test_a_channel_that_a_sum_reads_is_not_free_and_its_neighbour_is() -> None:
    sketch = Sketch()
    model = sketch.model(*sliced_into_a_sum(sketch))
    groups, _ = found(model)
    group = next(one for one in groups.all if one.concats)

    free = equalizable.freedom(group, groups)

    made = next(value for value in group.sources if free.of(value))
    assert free.channels[made].tolist() == [False] * 6 + [True] * 4
    assert free.refused == "Add makes a part of it, not a convolution"


@pytest.mark.parametrize("reader", ["Add", "GlobalAveragePool", "Sigmoid"])
def test_reader_that_cannot_take_the_inverse_is_named(reader: str) -> None:
    sketch = Sketch()
    block = sketch.block(sketch.stem())
    more = sketch.node(reader, block, *[sketch.conv(block, 14)] * (reader == "Add"))
    if reader == "GlobalAveragePool":  # a convolution could take it
        more = sketch.node("Sigmoid", more)
    outputs = [sketch.head(sketch.norm(block)), sketch.head(sketch.conv(more, 3))]

    row = refused(sketch, *outputs)

    assert row.refused == f"{reader} reads it and cannot take the inverse scale"


def test_grouped_convolution_that_reads_it_is_named() -> None:
    sketch = Sketch()
    row = refused(sketch, sketch.head(sketch.conv(sketch.block(sketch.stem()), 14, group=2)))

    assert row.refused == "Conv reads it and cannot take the inverse scale"


def test_output_of_the_graph_is_refused() -> None:
    sketch = Sketch()
    block = sketch.block(sketch.stem())

    row = refused(sketch, sketch.head(sketch.norm(block)), block)

    assert row.refused == "a part of it is an output"


def test_channels_that_become_pixels_are_refused() -> None:
    sketch = Sketch()
    flat = sketch.node("Flatten", sketch.concat(sketch.stem(), sketch.stem(2)), channels=8 * 64)
    weight = sketch.constant(np.random.default_rng(0).standard_normal((8 * 64, 3)) / 20)

    row = refused(sketch, sketch.node("Gemm", flat, weight, sketch.constant(np.zeros(3))))

    assert row.refused == "Flatten moves its channels"


def channels(low: list[float], high: list[float]) -> Channels:
    zero = np.zeros(len(low))
    return Channels(low=np.array(low, float), high=np.array(high, float), mean=zero, std=zero)


def test_span_moves_the_ends_that_were_seen_out_and_never_below_zero_alone() -> None:
    low, high = range_selection.encoded_range(channels([-2, 0, 1], [2, 4, 3]), None, 0.5)

    # Half of the way from the mean, here 0, to each end; what was never negative begins where it was seen.
    np.testing.assert_allclose(low, [-3, 0, 1])
    np.testing.assert_allclose(high, [3, 6, 4.5])


def test_span_ends_exactly_where_the_readers_stop() -> None:
    useful = Interval(low=np.array([-1, -np.inf]), high=np.array([np.inf, 0.5]))

    low, high = range_selection.encoded_range(channels([-2, -2], [2, 2]), useful, 0.5)

    np.testing.assert_allclose(low, [-1, -3])
    np.testing.assert_allclose(high, [3, 0.5])


@pytest.mark.parametrize(
    ("low", "high", "point"),
    [(np.inf, -np.inf, -2), (9, np.inf, 2), (-np.inf, -9, -2)],
    ids=["nothing", "above", "below"],
)
def test_span_of_what_no_reader_reaches_is_one_point_that_was_seen(low: float, high: float, point: float) -> None:
    useful = Interval(low=np.array([low]), high=np.array([high]))

    found = range_selection.encoded_range(channels([-2], [2]), useful, 0.5)

    assert [float(end[0]) for end in found] == [point, point]
