"""Tests of the first convolution on the pixels' grid: exact in float, and a direct computation with integers."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import array, maker, nodes, planned, quantized, run
from pixel_graphs import frames, network, preprocess, taking_pixels

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file, passes, pixel_input
from deploy_kit.quantization.int8 import pixel_grid
from deploy_kit.quantization.int8.grids import Grid

PADDED, UNPADDED = "pads=[1,2,0,1], strides=[2,1]", "strides=[1,2]"
every_border = pytest.mark.parametrize("attributes", [PADDED, 'auto_pad="SAME_LOWER"', UNPADDED])


def folded(color: str, attributes: str) -> ir.Model:
    model = taking_pixels(color, attributes)
    passes.apply_passes(model, passes.default_passes())
    return onnx_file.reread(model)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@every_border
def test_rewritten_float_graph_is_exact_with_its_borders(color: str, attributes: str) -> None:
    model, pixels = folded(color, attributes), frames(channels=1 if color == "gray" else 3)

    assert pixel_grid.read_pixels(model) is not None

    (wanted,) = tiny_graphs.evaluate(network(color, attributes), images.normalize(pixels, preprocess(color)))
    (found,) = tiny_graphs.evaluate(tiny_graphs.reread(model), pixels)
    assert metrics.relative_difference(wanted, found) < 1e-6


def test_zero_point_is_the_integer_nearest_to_the_mean_pixel() -> None:
    found = pixel_grid.read_pixels(folded("rgb", PADDED))

    assert found is not None
    assert found.grid == Grid(scale=1.0, zero=114)  # 255 · (0.485 + 0.456 + 0.406) / 3


@pytest.mark.parametrize("optimize", [False, True], ids=["as it stands", "optimized"])
@every_border
def test_file_computes_what_whole_numbers_give(attributes: str, optimize: bool) -> None:
    pixels = frames(4)
    model = quantized(taking_pixels(attributes=attributes), pixels, rounding="nearest")
    (conv,) = nodes(model, "Conv")
    weight, bias = (maker(value) for value in conv.inputs[1:])
    zero = int(array(maker(conv.inputs[0]).inputs[2]))
    integers = np.moveaxis(pixels.astype(np.int64), -1, 1)
    if attributes != UNPADDED:
        integers = np.concatenate([integers, np.full((4, 1, *integers.shape[2:]), 255)], axis=1)
    centered = integers - zero

    sums = direct(centered, array(weight.inputs[0]).astype(np.int64), conv) + array(bias.inputs[0]).reshape(1, -1, 1, 1)

    (found,) = run(model, pixels, optimize=optimize)
    steps = array(bias.inputs[1]).reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(np.rint(found / steps), np.maximum(sums, 0))


def direct(pixels: np.ndarray, weight: np.ndarray, conv: ir.Node) -> np.ndarray:
    """Convolve integers, (n, C, H, W) with (O, C, 3, 3); what is outside is 0."""
    strides = conv.attributes.get_ints("strides", (1, 1))
    automatic = conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    top, left, bottom, right = (1, 1, 1, 1) if automatic else conv.attributes.get_ints("pads", (0, 0, 0, 0))
    padded = np.pad(pixels, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, :: strides[0], :: strides[1]]
    return np.einsum("ncyxhw,ochw->noyx", windows, weight)


def test_no_float_tensor_comes_before_the_first_convolution() -> None:
    model = quantized(taking_pixels(), frames(4))

    before = [node.op_type for node in model.graph][: [node.op_type for node in model.graph].index("Conv")]

    assert before == ["Pad", "Transpose", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear"]
    assert nodes(model, "DequantizeLinear")[0].inputs[0].dtype == ir.DataType.UINT8


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


def test_a_wrong_weight_of_the_added_channel_is_noticed() -> None:
    pixels, model = frames(), folded("rgb", PADDED)
    found = pixel_grid.read_pixels(model)
    assert found is not None
    ((conv, _),) = found.value.uses()
    weight = array(conv.inputs[1]).astype(np.float32)
    before = tiny_graphs.evaluate(model, pixels)[0]
    weight[:, 3] *= 1.001
    conv.inputs[1].const_value = ir.Tensor(weight, name=conv.inputs[1].name)

    after = tiny_graphs.evaluate(model, pixels)[0]

    assert metrics.relative_difference(before, after) > 1e-6


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
