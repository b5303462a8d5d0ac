"""The plan that both layouts start from: its grids, its statistics, and graphs that it refuses."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from dense_graphs import Sketch, batches, planned, run, value

from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import edit, onnx_file
from deploy_kit.quantization.int8 import plan, range_selection
from deploy_kit.quantization.int8.plan import Int8Choices


@pytest.mark.parametrize("signed", [False, True])
def test_an_equalized_group_spans_one(signed: bool) -> None:
    sketch = Sketch()
    made = planned(sketch.model(sketch.network()), sketch.images(8), signed=signed)

    (row,) = made.rows
    grid = made.grids[row.group.values[0]]

    assert not row.refused
    assert grid.scale == pytest.approx(1 / 127 if signed else 2 / 255, rel=1e-6)
    assert grid.signed is signed


def test_without_equalization_the_loudest_channel_decides() -> None:
    sketch = Sketch()
    x = sketch.images(8)
    stem = sketch.stem(4, gain=[0.1, 1, 10, 0.01])
    block = sketch.concat(stem, sketch.stem(2))
    sketch.node("Identity", block, output="seen")
    # A convolution reads everything, so that the readers narrow nothing.
    model = sketch.model(sketch.conv(block, 3, output="y"))
    convolved = run(sketch.model("seen"), x)[0]

    made = planned(model, x, equalized=False)

    grid = made.grids[value(made.model, stem)]
    widened = 1 + range_selection.range_slack(8)
    assert grid.scale * 255 == pytest.approx((convolved.max() - convolved.min()) * widened, rel=0.05)
    assert made.rows == ()


def test_every_value_of_a_group_has_its_grid() -> None:
    sketch = Sketch()
    made = planned(sketch.model(sketch.network()), sketch.images(8))

    for group in made.groups.all:
        assert len({made.grids[member] for member in group.values}) == 1
    assert set(made.grids) == set(made.groups.of)


def test_input_is_encoded_from_its_own_range() -> None:
    sketch = Sketch()
    x = sketch.images(8)

    made = planned(sketch.model(sketch.network()), x)

    grid = made.grids[made.model.graph.inputs[0]]
    assert grid.scale * 255 == pytest.approx(float(x.max() - x.min()), rel=1e-5)


def test_moments_of_a_concatenation_are_those_of_its_parts() -> None:
    sketch = Sketch()
    a, b = sketch.stem(3), sketch.stem(2)
    both = sketch.concat(b, a)
    made = planned(sketch.model(sketch.conv(both, 3)), sketch.images(8), equalized=False)

    seen = [made.moments(value(made.model, name)) for name in (both, b, a)]

    np.testing.assert_array_equal(seen[0].mean, np.concatenate([seen[1].mean, seen[2].mean]))
    np.testing.assert_array_equal(seen[0].std, np.concatenate([seen[1].std, seen[2].std]))
    assert not seen[0].error.any()


def test_moments_of_flattened_pixels_are_observed() -> None:
    sketch = Sketch(pixels=(2, 2))
    flat = sketch.node("Flatten", sketch.stem(3), output="flat", channels=12)
    model = sketch.model(sketch.node("Gemm", flat, sketch.constant(np.ones((12, 2)))), flat)
    x = sketch.images(8)

    made = planned(model, x)

    np.testing.assert_allclose(made.moments(value(made.model, "flat")).mean, run(model, x)[1].mean(0), atol=1e-6)


def make(sketch: Sketch, output: str, opset: int = 18, n_images: int = 4) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        onnx_file.save(sketch.model(output, opset=opset), source)
        plan.make_plan(source, Int8Choices(passes=()), lambda: batches(sketch.images(n_images)), n_images)


def test_operator_set_before_scales_per_channel_is_refused() -> None:
    sketch = Sketch()

    with pytest.raises(QuantizeError, match=r"source\.onnx: operator set 12; Q/DQ per channel begins at 13") as caught:
        make(sketch, sketch.network(), opset=12)

    assert caught.value.hint == "export with --opset 13 or higher"


def test_graph_without_anything_to_quantize_is_refused() -> None:
    sketch = Sketch()

    with pytest.raises(QuantizeError, match=r"source\.onnx: nothing in it can be quantized") as caught:
        make(sketch, sketch.node("Sigmoid", "x"))

    assert caught.value.hint == "it needs a convolution or a Gemm with constant weights"


def test_activation_that_overflows_is_named() -> None:
    sketch = Sketch()
    loud = sketch.conv("x", 4, gain=1e30, output="loud")
    louder = sketch.conv(loud, 4, gain=1e30, output="louder")

    with pytest.raises(QuantizeError, match="activation 'louder' is not finite on these images"):
        make(sketch, sketch.conv(louder, 3))


def test_bounds_of_a_dense_block_are_near_integers() -> None:
    sketch = Sketch()
    made = planned(sketch.model(sketch.network(gamma=1.0)), sketch.images(8), passes=("batchnorm_to_max",))

    off = []
    for node in made.model.graph:
        if node.op_type == "Max":
            grid = made.grids[node.outputs[0]]
            at = edit.array(node.inputs[1]).reshape(-1) / grid.scale + grid.zero
            off.append(np.abs(at - np.rint(at))[(at > -0.5) & (at < 255.5)])

    # Bounds that nobody looked after would be a quarter of a step off; those at the end of a range that is centered on
    # 127.5 steps, half a step.
    assert np.concatenate(off).mean() < 0.1


def test_a_bottleneck_is_equalized_by_the_square_roots_of_its_ranges() -> None:
    sketch = Sketch()
    gain = np.geomspace(0.01, 1, 8)
    inner = sketch.node("Relu", sketch.conv("x", 8, gain=gain, bias=gain), output="inner")
    x = sketch.images(8)
    reach = run(sketch.model(inner), x)[0].max((0, 2, 3))

    made = planned(sketch.model(sketch.conv(inner, 4, 3, pad=1)), x)

    low, high = made.spans[value(made.model, "inner")]

    assert (low == 0).all()
    np.testing.assert_allclose(high / high.max(), np.sqrt(reach / reach.max()), rtol=0.06)  # ends moved out
