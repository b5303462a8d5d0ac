"""What the activations of a graph are like, against numpy on the activations themselves."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
from dense_graphs import Sketch, batches, run

from deploy_kit.base.errors import QuantizeError
from deploy_kit.quantization import ranges
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations, ReducedGraph

# The runtime's own rewrites round the last bits of a convolution otherwise, and sums are of float32.
ROUNDING = 1e-6


def watched(pixels: tuple[int, ...], batch: int = 1, opset: int = 18) -> tuple[Sketch, ir.Model]:
    """Draw a convolution and a ReLU; both are outputs too, so that a run gives them."""
    sketch = Sketch(pixels=pixels, batch=batch)
    c = sketch.conv("x", 4, 3, pad=1, gain=[0.01, 1, 10, 0])
    return sketch, sketch.model(c, sketch.node("Relu", c, output="r"), opset=opset)


def proto(model: ir.Model) -> onnx.ModelProto:
    return ir.serde.serialize_model(model)


def expect(seen: ranges.Channels, values: np.ndarray) -> None:
    """Compare with numpy, over all axes but the second."""
    over = tuple(axis for axis in range(values.ndim) if axis != 1)
    wide = values.astype(np.float64)
    largest = max(np.abs(wide).max(), 1e-30)
    np.testing.assert_allclose(seen.low, wide.min(over), rtol=0, atol=ROUNDING * largest)
    np.testing.assert_allclose(seen.high, wide.max(over), rtol=0, atol=ROUNDING * largest)
    np.testing.assert_allclose(seen.mean, wide.mean(over), rtol=0, atol=ROUNDING * largest)
    np.testing.assert_allclose(seen.std, wide.std(over), rtol=1e-4, atol=ROUNDING * largest)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("pixels", [(9,), (6, 5), (4, 3, 5)], ids=["1-D", "2-D", "3-D"])
def test_statistics_are_those_of_numpy_over_all_images_and_pixels(pixels: tuple[int, ...], batch: int) -> None:
    sketch, model = watched(pixels, batch)
    x = sketch.images(12)
    convolved, rectified = run(model, x, optimize=False)

    seen, _ = ranges.observe_activations(proto(model), ["conv3", "r", "x"], batches(x, batch))

    for name, values in {"conv3": convolved, "r": rectified, "x": x}.items():
        expect(seen[name], values)


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 23])
def test_every_operator_set_has_the_reductions(opset: int) -> None:
    sketch, model = watched((6, 6), opset=opset)
    x = sketch.images(5)

    seen, _ = ranges.observe_activations(proto(model), ["conv3"], batches(x))

    expect(seen["conv3"], run(model, x, optimize=False)[0])


def test_activation_without_pixels_is_reduced_over_the_images_alone() -> None:
    sketch = Sketch()
    logits = sketch.head(sketch.conv("x", 6))
    x = sketch.images(7)
    model = sketch.model(logits)

    seen, _ = ranges.observe_activations(proto(model), [logits], batches(x))

    expect(seen[logits], run(model, x, optimize=False)[0])


def test_comparison_with_numpy_notices_one_image_that_is_missing() -> None:
    sketch, model = watched((6, 6))
    x = sketch.images(6)

    seen, _ = ranges.observe_activations(proto(model), ["conv3"], batches(x[:-1]))

    with pytest.raises(AssertionError):
        expect(seen["conv3"], run(model, x, optimize=False)[0])


def test_means_alone_are_the_same_means() -> None:
    sketch, model = watched((6, 6), batch=2)
    x = sketch.images(8)

    seen, means = ranges.observe_activations(proto(model), ["conv3"], batches(x, 2), means=["r"])

    assert (list(seen), list(means)) == (["conv3"], ["r"])
    np.testing.assert_allclose(means["r"], run(model, x)[1].mean((0, 2, 3)), atol=1e-6)


def test_deviation_of_a_channel_far_from_zero_is_not_rounded_away() -> None:
    model = tiny_graphs.parse("g (float[1,1,32,32] x) => (float[1,1,32,32] y) { y = Add(x, k) }", k=np.array(30.0))
    x = np.random.default_rng(0).standard_normal((4, 1, 32, 32), np.float32)

    seen, _ = ranges.observe_activations(proto(model), ["y"], batches(x))

    assert seen["y"].std[0] == pytest.approx(x.std(), rel=1e-3)


@pytest.mark.parametrize("place", [0, 7, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_named(value: float, place: int) -> None:
    sketch, model = watched((6, 6))
    x = sketch.images(4)
    x[2].reshape(-1)[place] = value

    with pytest.raises(QuantizeError, match="calibration: activation 'x' is not finite on these images") as caught:
        ranges.observe_activations(proto(model), ["x"], batches(x))

    assert caught.value.hint == "check the preprocessing (mean, std) and the checkpoint"


def test_no_images_are_refused() -> None:
    _, model = watched((6, 6))

    with pytest.raises(QuantizeError, match="calibration: no images"):
        ranges.observe_activations(proto(model), ["x"], iter(()))


def test_graph_given_is_not_changed() -> None:
    sketch, model = watched((6, 6))
    given = proto(model)
    before = given.SerializeToString(deterministic=True)

    ranges.observe_activations(given, ["conv3"], batches(sketch.images(2)))

    assert given.SerializeToString(deterministic=True) == before


def test_a_run_gives_a_few_numbers_per_channel_and_never_an_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch, model = watched((6, 6))
    fetched: list[int] = []
    session = onnxruntime.InferenceSession

    class Watched(session):
        def run(self, *arguments: object) -> list[np.ndarray]:
            given = super().run(*arguments)
            fetched.append(sum(part.size for part in given))
            return given

    monkeypatch.setattr(onnxruntime, "InferenceSession", Watched)

    ranges.observe_activations(proto(model), ["conv3"], batches(sketch.images(20)), means=["r"])

    # Low, high, mean and square of 4 channels, and the mean of 4 more: in every run, however many images came before.
    assert fetched == [4 * 4 + 4] * 20


def test_no_batch_is_kept_once_it_was_seen() -> None:
    sketch, model = watched((6, 6))
    alive: list[int] = []

    class Counted(np.ndarray):
        count = 0

        def __del__(self) -> None:
            Counted.count -= 1

    def stream():
        for part in batches(sketch.images(10)):
            made = part.view(Counted)
            Counted.count += 1
            alive.append(Counted.count)
            yield made
            del made

    ranges.observe_activations(proto(model), ["conv3"], stream())

    # The one that is being made, and the one that the loop still holds.
    assert max(alive) <= 2


def test_same_images_give_the_same_bits() -> None:
    sketch, model = watched((16, 16))
    x = sketch.images(6)

    one, two = (ranges.observe_activations(proto(model), ["conv3"], batches(x))[0]["conv3"] for _ in range(2))

    assert all(np.array_equal(getattr(one, part), getattr(two, part)) for part in ("low", "high", "mean", "std"))


def test_histograms_are_counted_of_some_images_and_extremes_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "COUNTED_IMAGES", 1)
    monkeypatch.setattr(ranges, "COUNTED_BYTES", 4 * (4 * 4 * 30))  # four images of 4 channels and 30 pixels
    sketch, model = watched((6, 5))
    x = sketch.images(8)
    convolved = run(model, x, optimize=False)[0]
    activations = ObservedActivations(names=("conv3",), histograms=("conv3",))

    graph = ReducedGraph(proto(model), activations)
    some, all_ = ranges.Observer(graph, expected=8), ranges.Observer(graph)
    for batch in batches(x):
        some.add(batch)
        all_.add(batch)

    expect(some.channels()["conv3"], convolved)
    counted = {name: seen.histograms["conv3"] for name, seen in (("some", some), ("all", all_))}
    assert counted["some"].counts[1].sum() + counted["some"].beyond[1].sum() == 4 * 30  # every second image
    assert counted["all"].counts[1].sum() + counted["all"].beyond[1].sum() == 8 * 30
