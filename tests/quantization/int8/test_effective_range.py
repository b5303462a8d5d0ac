"""What an activation's readers can tell apart: clipping to it must not change one bit that float64 shows."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import Sketch, found, value

from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.int8.effective_range import Interval

EXACT = 1e-12  # rounding of float64 in the threshold −b/a, and nothing else
EVERYTHING = (-np.inf, np.inf)
MADE_MAX = ("relu_after_pool", "batchnorm_to_max")


def prepared(model: ir.Model, *names: str) -> ir.Model:
    for name in names:
        passes.CATALOGUE.get(name).apply(model)
    return onnx_file.reread(model)


def clip(model: ir.Model, clipped: ir.Value, low: np.ndarray, high: np.ndarray) -> None:
    """Let all readers see an activation only between two bounds per channel, kept in float64."""
    assert clipped.shape is not None
    users, column = tuple(clipped.uses()), (1, -1, *[1] * (len(clipped.shape) - 2))
    result = clipped
    for operator, bound in (("Max", low), ("Min", high)):
        finite = np.clip(bound, -1e300, 1e300).reshape(column)
        constant = ir.Value(name=f"{clipped.name}.{operator}", const_value=ir.tensor(finite))
        model.graph.register_initializer(constant)
        node = ir.node(operator, [result, constant])
        model.graph.insert_after(result.producer(), node)
        result = node.outputs[0]
        result.name = f"{clipped.name}.{operator}.out"
    for user, index in users:
        user.replace_input_with(index, result)


def clip_sources(model: ir.Model, *, shrink: float = 0.0) -> int:
    """Clip what every computing node gives to its useful interval; gives the number of bounds that clip."""
    groups, intervals = found(model)
    n = 0
    for source in (s for group in groups.all for s in group.sources if s in intervals):
        low, high = intervals[source].low, intervals[source].high
        empty = low > high  # no reader looks: any number will do
        low, high = np.where(empty, 0.123, low + shrink), np.where(empty, 0.123, high - shrink)
        n += int(np.isfinite(low).sum() + np.isfinite(high).sum())
        clip(model, source, low, high)
    return n


def gammas(n: int, seed: int) -> np.ndarray:
    """Draw slopes of both signs, some exactly zero and some nearly."""
    generator = np.random.default_rng(seed)
    return generator.choice([-1.5, -0.4, -1e-6, 0.0, 1e-6, 0.7, 2.0], n)


def network(seed: int, reader: str = "none") -> ir.Model:
    """Draw a stem with ReLU and max pool, two dense layers and a transition; perhaps one more reader of the block."""
    sketch = Sketch(pixels=(9, 9), seed=seed)
    x = sketch.node("MaxPool", sketch.node("Relu", sketch.stem()), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for index in range(2):
        x = sketch.concat(x, sketch.layer(x, gamma=gammas(sketch.n_channels[x], 10 * seed + index)))
    rectified = sketch.norm(x, gamma=gammas(sketch.n_channels[x], 10 * seed + 5))
    outputs = [sketch.head(sketch.conv(rectified, 5))]
    if reader == "average pool":
        outputs.append(sketch.conv(sketch.node("AveragePool", x, kernel_shape=[2, 2]), 3))
    if reader == "max pool":
        outputs.append(sketch.conv(sketch.norm(sketch.node("MaxPool", x, kernel_shape=[2, 2])), 3))
    if reader == "convolution":
        outputs.append(sketch.conv(x, 3))
    return sketch.model(*outputs)


def both(model: ir.Model, x: np.ndarray, **options: float) -> tuple[float, int]:
    """Give the largest difference that clipping makes to any output, and how many bounds clip."""
    before = tiny_graphs.evaluate(model, x)
    n = clip_sources(model, **options)
    after = tiny_graphs.evaluate(model, x)
    return max(metrics.relative_difference(b, a) for b, a in zip(before, after, strict=True)), n


@pytest.mark.parametrize("reader", ["none", "max pool", "average pool", "convolution"])
@pytest.mark.parametrize("names", [(), MADE_MAX], ids=["BN", "max and min"])
@pytest.mark.parametrize("seed", range(3))
def test_clipping_to_it_changes_no_output(seed: int, names: tuple[str, ...], reader: str) -> None:
    model = prepared(network(seed, reader), *names)
    # Far beyond the usual range, so that thresholds are met from both sides.
    x = 5 * np.random.default_rng(seed).standard_normal((1, 3, 9, 9))

    difference, n = both(model, x)

    assert difference < EXACT
    assert n > 0 or reader in ("average pool", "convolution")  # these read everything


def test_clipping_a_little_further_does_change_the_outputs() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 9))

    difference, _ = both(prepared(network(0), *MADE_MAX), x, shrink=0.01)

    assert difference > 1e-4


def interval(sketch: Sketch, name: str, *outputs: str) -> Interval:
    model = sketch.model(*outputs)
    return found(model)[1][value(model, name)]


def test_behind_a_norm_with_relu_it_begins_or_ends_at_the_threshold() -> None:
    sketch = Sketch()
    c = sketch.stem(4)
    y = sketch.node(
        "BatchNormalization", c, *map(sketch.constant, ([2, -2, 0, 0], [1, 1, 1, -1], [0.5] * 4, [4.0] * 4))
    )
    logits = sketch.head(sketch.node("Relu", y))

    seen = interval(sketch, c, logits)

    # y = γ·(x − 0.5)/2 + β (but for ε) is 0 at x = 0.5 − 2β/γ: at −0.5 and 1.5.
    np.testing.assert_allclose(seen.low, [-0.5, -np.inf, np.inf, np.inf], atol=1e-4)
    np.testing.assert_allclose(seen.high, [np.inf, 1.5, -np.inf, -np.inf], atol=1e-4)


def test_a_norm_without_relu_tells_everything_apart() -> None:
    sketch = Sketch()
    c = sketch.stem(4)

    seen = interval(sketch, c, sketch.head(sketch.norm(c, relu=False)))

    assert (seen.low.max(), seen.high.min()) == EVERYTHING


def test_two_readers_need_both_of_their_intervals() -> None:
    sketch = Sketch()
    c = sketch.stem(2)
    limits = [sketch.constant(np.reshape(pair, (1, 2, 1, 1))) for pair in ([1, -1], [0.5, 0.5])]
    heads = [sketch.conv(sketch.node("Max", c, limit), 3) for limit in limits]

    seen = interval(sketch, c, *heads)

    np.testing.assert_array_equal(seen.low, [0.5, -1])


def test_a_concatenation_gives_each_part_its_own_channels() -> None:
    sketch = Sketch()
    a, b = sketch.stem(2), sketch.stem(3)
    limit = sketch.constant(np.reshape([1, 2, 3, 4, 5], (1, 5, 1, 1)))
    out = sketch.conv(sketch.node("Max", sketch.concat(b, a), limit), 3)

    np.testing.assert_array_equal(interval(sketch, b, out).low, [1, 2, 3])
    np.testing.assert_array_equal(interval(sketch, a, out).low, [4, 5])


def test_a_value_concatenated_twice_needs_both_places() -> None:
    sketch = Sketch()
    a = sketch.stem(2)
    limit = sketch.constant(np.reshape([1, 5, 3, 2], (1, 4, 1, 1)))
    out = sketch.conv(sketch.node("Max", sketch.concat(a, a), limit), 3)

    np.testing.assert_array_equal(interval(sketch, a, out).low, [1, 2])


def test_a_bound_that_never_clips_leaves_the_rest_to_what_follows() -> None:
    sketch = Sketch()
    a = sketch.stem(2)
    highest = sketch.constant(np.reshape([3e38, 7], (1, 2, 1, 1)))
    lowest = sketch.constant(np.reshape([1, -3e38], (1, 2, 1, 1)))
    out = sketch.conv(sketch.node("Min", sketch.node("Max", a, lowest), highest), 3)

    seen = interval(sketch, a, out)

    np.testing.assert_array_equal(seen.low, [1, -np.inf])
    np.testing.assert_array_equal(seen.high, [np.inf, 7])


@pytest.mark.parametrize("reader", ["AveragePool", "Sigmoid", "output", "Flatten"])
def test_what_reads_everything_keeps_everything(reader: str) -> None:
    sketch = Sketch()
    c = sketch.stem(4)
    outputs = [sketch.conv(sketch.norm(c), 3)]
    if reader == "output":
        outputs.append(c)
    elif reader == "AveragePool":
        outputs.append(sketch.conv(sketch.node(reader, c, kernel_shape=[2, 2]), 3))
    else:
        outputs.append(sketch.node(reader, c))

    seen = interval(sketch, c, *outputs)

    assert (seen.low.max(), seen.high.min()) == EVERYTHING
