"""Tests of the first convolution on the pixels' grid: exact in float, and a direct computation with integers."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
from dense_graphs import array, maker, nodes, planned, quantized, run
from pixel_graphs import frames, network, preprocess, taking_pixels

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file, passes, pixel_input
from deploy_kit.quantization.int8 import pixel_grid
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.records.artifacts import Preprocess

PADDED, UNPADDED = "pads=[1,2,0,1], strides=[2,1]", "strides=[1,2]"
every_border = pytest.mark.parametrize("attributes", [PADDED, 'auto_pad="SAME_LOWER"', UNPADDED])


def folded(color: str, attributes: str) -> ir.Model:
    model = taking_pixels(color, attributes)
    passes.apply_passes(model, passes.default_passes())
    return onnx_file.reread(model)


def computed(color: str, attributes: str, pixels: np.ndarray) -> np.ndarray:
    """Compute in float64 what the graph computes in which the first convolution reads the pixels' grid."""
    model = folded(color, attributes)
    assert pixel_grid.read_pixels(model) is not None
    return tiny_graphs.evaluate(tiny_graphs.reread(model), pixels)[0]


def padded_with_mean_pixels(color: str, attributes: str, pixels: np.ndarray, *, rounded: bool) -> np.ndarray:
    """Compute in float64 by numpy: frames with a border of the mean pixel, or of the integer nearest to it."""
    (conv,) = nodes(network(color, attributes), "Conv")
    what = preprocess(color)
    mean, std = (np.asarray(values)[:, None, None] for values in (what.mean, what.std))
    planes = np.moveaxis(pixels, -1, 1)[:, :: -1 if color == "bgr" else 1].astype(np.float64)
    border = np.rint(255 * mean) if rounded else 255 * mean
    wide = direct_border(planes - border, conv) + border
    return np.maximum(convolved((wide / 255 - mean) / std, array(conv.inputs[1]), conv) + bias_of(conv), 0)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@every_border
def test_rewritten_float_graph_has_a_border_of_the_nearest_pixel(color: str, attributes: str) -> None:
    pixels = frames(channels=1 if color == "gray" else 3)

    found = computed(color, attributes, pixels)

    if color != "gray":  # there the convolution pads itself: the next test
        wanted = padded_with_mean_pixels(color, attributes, pixels, rounded=True)
        assert metrics.relative_difference(wanted, found) < 1e-6


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@every_border
def test_it_differs_from_the_float_graph_by_half_a_step_of_the_border_at_most(color: str, attributes: str) -> None:
    pixels = frames(channels=1 if color == "gray" else 3)
    tensors = images.normalize(pixels, preprocess(color))
    (wanted,) = tiny_graphs.evaluate(network(color, attributes), tensors)
    step = 1 / (255 * np.asarray(preprocess(color).std))
    weight = np.abs(array(nodes(network(color, attributes), "Conv")[0].inputs[1]))
    half = 0.5 * (weight * step.reshape(1, -1, 1, 1)).sum((1, 2, 3)).reshape(1, -1, 1, 1)

    off = np.abs(computed(color, attributes, pixels) - wanted)

    assert (off <= half).all()
    if attributes == UNPADDED:
        assert off.max() < 1e-5
    else:
        assert off[:, :, 2:-2, 2:-2].max() < 1e-5


def test_zero_point_is_the_integer_nearest_to_the_mean_pixel_of_all_channels() -> None:
    found = pixel_grid.read_pixels(folded("rgb", PADDED))

    assert found is not None
    assert found.grid == Grid(scale=1.0, zero=114)  # 255 · (0.485 + 0.456 + 0.406) / 3


@pytest.mark.parametrize("optimize", [False, True], ids=["as it stands", "optimized"])
@every_border
def test_file_computes_what_whole_numbers_give(attributes: str, optimize: bool) -> None:
    pixels, source = frames(4), nodes(network(attributes=attributes), "Conv")[0]
    model = quantized(taking_pixels(attributes=attributes), pixels, rounding="nearest")
    (conv,) = nodes(model, "Conv")
    weight, bias = (maker(value) for value in conv.inputs[1:])
    zero = int(array(maker(conv.inputs[0]).inputs[2]))
    nearest = np.rint(255 * np.asarray(preprocess().mean)).astype(np.int64).reshape(3, 1, 1)
    wide = direct_border(np.moveaxis(pixels.astype(np.int64), -1, 1) - nearest, source) + nearest - zero

    sums = convolved(wide, array(weight.inputs[0]).astype(np.int64), source)

    sums = np.maximum(sums + array(bias.inputs[0]).reshape(1, -1, 1, 1), 0)
    (found,) = run(model, pixels, optimize=optimize)
    np.testing.assert_array_equal(np.rint(found / array(bias.inputs[1]).reshape(1, -1, 1, 1)), sums)


def direct_border(planes: np.ndarray, conv: ir.Node) -> np.ndarray:
    """Put a border of zeros around (n, C, H, W), as wide as a convolution of 3×3 px pads."""
    automatic = conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    top, left, bottom, right = (1, 1, 1, 1) if automatic else conv.attributes.get_ints("pads", (0, 0, 0, 0))
    return np.pad(planes, ((0, 0), (0, 0), (top, bottom), (left, right)))


def convolved(planes: np.ndarray, weight: np.ndarray, conv: ir.Node) -> np.ndarray:
    """Convolve (n, C, H, W) with (O, C, 3, 3) without padding, number by number."""
    down, right = conv.attributes.get_ints("strides", (1, 1))
    windows = np.lib.stride_tricks.sliding_window_view(planes, (3, 3), (2, 3))[:, :, ::down, ::right]
    return np.einsum("ncyxhw,ochw->noyx", windows, weight)


def bias_of(conv: ir.Node) -> np.ndarray:
    return array(conv.inputs[2]).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(("color", "border"), [("rgb", ["Pad", "Where"]), ("gray", [])])
def test_no_float_tensor_comes_before_the_first_convolution(color: str, border: list[str], tmp_path: Path) -> None:
    channels = 1 if color == "gray" else 3
    pixels, draw = frames(4, channels=channels), np.random.default_rng(1)
    model = tiny_graphs.parse(
        f"g (float[N,{channels},10,12] x) => (float[N,4,a,b] y) {{ c = Conv<pads=[1,1,1,1]>(x, w) y = Conv(c, v) }}",
        w=draw.standard_normal((4, channels, 3, 3)), v=draw.standard_normal((4, 4, 3, 3)),
    )  # fmt: skip
    pixel_input.take_pixels(model, preprocess(color))
    onnx_file.save(quantized(model, pixels), tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED

    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])

    graph = onnx.load(tmp_path / "optimized.onnx").graph
    made = {name: node for node in graph.node for name in node.output}
    above = [next(node for node in graph.node if node.op_type == "QLinearConv")]
    while (name := above[-1].input[above[-1].op_type == "Where"]) in made:  # its first input is a constant
        above.append(made[name])
    assert [node.op_type for node in reversed(above)] == [*border, "Transpose", "QLinearConv"]


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_integers_are_no_further_from_float_than_those_of_a_float_input(color: str) -> None:
    pixels = frames(16, channels=1 if color == "gray" else 3, seed=3)
    tensors = images.normalize(pixels, preprocess(color))
    (wanted,) = run(network(color), tensors)

    (found,) = run(quantized(taking_pixels(color), pixels), pixels)

    (other,) = run(quantized(network(color), tensors), tensors)
    assert metrics.sqnr_db(flat(wanted), flat(found)) > metrics.sqnr_db(flat(wanted), flat(other)) - 1


def flat(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


def test_another_border_is_noticed() -> None:
    pixels, model = frames(), folded("rgb", PADDED)
    assert pixel_grid.read_pixels(model) is not None
    before = tiny_graphs.evaluate(model, pixels)[0]
    border = model.graph.initializers["x.border"]
    border.const_value = ir.Tensor(border.const_value.numpy() + np.uint8(1), name=border.name)

    after = tiny_graphs.evaluate(model, pixels)[0]

    assert metrics.relative_difference(before, after) > 1e-4


def test_a_mean_that_is_no_pixel_leaves_the_normalization_in_float() -> None:
    model, strange = network(), dataclasses.replace(preprocess(), mean=(-0.1, 0.5, 0.5))
    pixel_input.take_pixels(model, strange)
    pixels = frames(4)

    assert planned(model, pixels).pixels is None
    (wanted,), (found,) = run(model, pixels), run(quantized(model, pixels), pixels)
    assert metrics.sqnr_db(flat(wanted), flat(found)) > 30


def test_a_graph_without_pixels_has_no_such_grid() -> None:
    assert planned(network(), images.normalize(frames(), preprocess())).pixels is None


def test_pixels_that_something_else_reads_are_quantized_behind_their_normalization() -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,4,a,b] y) { r = Relu(x) y = Conv(r, w) }", w=np.ones((4, 3, 3, 3))
    )
    pixel_input.take_pixels(model, preprocess())
    pixels = frames(4)

    found = quantized(model, pixels)

    assert planned(model, pixels).pixels is None
    (wanted,), (got,) = run(model, pixels), run(found, pixels)
    assert metrics.sqnr_db(flat(wanted), flat(got)) > 30


IMAGENET, HALVES = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.5, 0.5), (0.5, 0.25, 0.3))
every_normalization = pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALVES, ((0.286,), (0.353,))])
Numbers = tuple[float, ...]


def of_floats(mean: Numbers, std: Numbers, attributes: str = PADDED) -> tuple[ir.Model, Preprocess]:
    """Give a graph with a float input that says what pixels become."""
    what = dataclasses.replace(preprocess("gray" if len(mean) == 1 else "rgb"), mean=mean, std=std)
    model = network(what.color, attributes)
    onnx_file.embed(model, what)
    return onnx_file.reread(model), what


@every_normalization
@every_border
def test_float_graph_that_counts_in_pixels_computes_the_same(mean: Numbers, std: Numbers, attributes: str) -> None:
    model, what = of_floats(mean, std, attributes)
    x = images.normalize(frames(channels=len(mean)), what)
    (wanted,) = tiny_graphs.evaluate(model, x)

    assert pixel_grid.read_pixels(model) is not None

    (found,) = tiny_graphs.evaluate(onnx_file.reread(model), x)
    off = np.abs(found - wanted)
    assert off[:, :, 2:-2, 2:-2].max() < 1e-4
    if attributes == UNPADDED or len(set(np.rint(255 * np.asarray(mean)))) > 1:
        assert off.max() < 1e-4
    else:  # the convolution pads itself, with the integer nearest to the mean
        weight = np.abs(array(nodes(network(what.color), "Conv")[0].inputs[1]))
        half = 0.5 / (255 * np.asarray(std)).reshape(1, -1, 1, 1)
        assert (off <= (weight * half).sum((1, 2, 3)).reshape(1, -1, 1, 1) + 1e-4).all()


@every_normalization
def test_every_pixel_becomes_the_integer_that_it_was(mean: Numbers, std: Numbers) -> None:
    model, what = of_floats(mean, std, UNPADDED)
    pixels = np.resize(np.arange(256, dtype=np.uint8), (4, *frames(channels=len(mean)).shape[1:]))
    pixels[...] = np.arange(pixels[..., 0].size).reshape(pixels[..., :1].shape) % 256
    x = images.normalize(pixels, what)

    written = quantized(model, x, rounding="nearest")

    (conv,) = nodes(written, "Conv")
    integers = maker(conv.inputs[0]).inputs[0]
    written.graph.outputs[:] = [integers]
    (found,) = run(onnx_file.reread(written), x)
    np.testing.assert_array_equal(found, np.moveaxis(pixels, -1, 1))


def test_float_input_in_steps_of_its_pixels_rounds_less_than_one_step_for_all_channels() -> None:
    model, what = of_floats(*IMAGENET)
    x = images.normalize(frames(16, seed=3), what)
    silent = network(attributes=PADDED)  # does not say what pixels become
    (wanted,) = run(model, x)

    told, untold = (metrics.sqnr_db(flat(wanted), flat(run(quantized(m, x), x)[0])) for m in (model, silent))

    assert told > untold + 0.5


def test_a_mean_that_is_no_pixel_leaves_a_float_input_as_it_is() -> None:
    model, what = of_floats((-0.1, 0.5, 0.5), (0.25, 0.25, 0.25))

    assert planned(model, images.normalize(frames(4), what)).pixels is None
