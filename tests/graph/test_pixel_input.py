"""Tests of preprocessing inside the graph: the numbers of numpy's formula, bit for bit, and each reason to refuse."""

import dataclasses

import numpy as np
import onnx_ir as ir
import pixel_graphs
import pytest
import tiny_graphs
from dense_graphs import run
from pixel_graphs import frames, network, preprocess, taking_pixels

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import InputError
from deploy_kit.graph import onnx_file, passes, pixel_input
from deploy_kit.records.artifacts import BareInput

every_color = pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])


@every_color
def test_graph_computes_the_bits_of_the_one_behind_numpys_normalization(color: str) -> None:
    pixels = frames(channels=1 if color == "gray" else 3)

    (found,) = run(tiny_graphs.reread(taking_pixels(color)), pixels, optimize=False)

    (wanted,) = run(network(color), images.normalize(pixels, preprocess(color)), optimize=False)
    np.testing.assert_array_equal(found, wanted)


def test_input_is_uint8_with_channels_last_and_says_so_in_the_file() -> None:
    model = tiny_graphs.reread(taking_pixels())

    (spec,) = onnx_file.specs(onnx_file.inputs(model))

    assert (spec.name, spec.dtype, spec.shape) == ("x", "uint8", ("N", *pixel_graphs.SIDES, 3))
    assert onnx_file.preprocess(model) == dataclasses.replace(preprocess(), input_pixels=True)


def test_pixels_are_moved_before_they_become_floats() -> None:
    assert tiny_graphs.operators(taking_pixels("bgr"))[:3] == ["Transpose", "Gather", "Cast"]


@every_color
def test_normalization_is_found_as_the_formula_says(color: str) -> None:
    found = pixel_input.normalization_of(taking_pixels(color))

    assert found is not None
    mean, std = (np.asarray(values) for values in (preprocess(color).mean, preprocess(color).std))
    np.testing.assert_allclose(found.scale, 1 / (255 * std), rtol=1e-6)
    np.testing.assert_allclose(found.shift, -mean / std, rtol=1e-6)


def test_no_normalization_is_found_in_a_graph_that_takes_floats() -> None:
    assert pixel_input.normalization_of(network()) is None


@pytest.mark.parametrize("simplified", [False, True], ids=["exported", "simplified"])
@every_color
def test_a_graph_takes_floats_again_with_the_same_results(color: str, simplified: bool) -> None:
    pixels, model = frames(channels=1 if color == "gray" else 3), taking_pixels(color)
    taken = onnx_file.preprocess(model)
    assert taken is not None
    (wanted,) = run(network(color), images.normalize(pixels, taken))
    if simplified:
        passes.apply_passes(model, passes.default_passes())

    pixel_input.with_float_input(model, taken)

    model = tiny_graphs.reread(model)
    assert onnx_file.preprocess(model) == preprocess(color)
    (found,) = run(model, images.normalize(pixels, preprocess(color)))
    assert metrics.relative_difference(wanted, found) < 1e-6


def test_a_graph_that_takes_pixels_already_is_refused() -> None:
    model = taking_pixels()
    taken = onnx_file.preprocess(model)
    assert taken is not None

    with pytest.raises(InputError, match="takes pixels already") as caught:
        pixel_input.take_pixels(model, taken)

    assert caught.value.hint == "leave --input-pixels out"


def test_an_input_of_which_only_the_shape_is_known_is_refused() -> None:
    with pytest.raises(InputError, match="how an image becomes the input is not known") as caught:
        pixel_input.take_pixels(network(), BareInput(shape=(3, 10, 12)))

    assert "--mean" in caught.value.hint


def test_an_input_of_half_precision_is_refused() -> None:
    model = network()
    model.graph.inputs[0].dtype = ir.DataType.FLOAT16

    with pytest.raises(InputError, match="expected a graph whose input is float, found 'x' of float16"):
        pixel_input.take_pixels(model, preprocess())
