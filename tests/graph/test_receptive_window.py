"""Which pixels a convolution reads: a patch times a row of the weights is the convolution of ONNX's evaluator."""

import numpy as np
import pytest
from dense_graphs import Sketch, nodes
from onnx.reference import ReferenceEvaluator
from onnx_ir.serde import serialize_model

from deploy_kit.graph import receptive_window

SHAPES = {
    "plain": {},
    "padded": {"pads": [1, 2, 1, 2]},
    "strided": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilated": {"dilations": [2, 1], "pads": [2, 0, 2, 0]},
    "padded behind alone": {"pads": [0, 0, 1, 1], "strides": [2, 2]},
    "same, more behind": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same, more in front": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_patches_times_weights_are_the_convolution(name: str) -> None:
    sketch = Sketch(channels=2, pixels=(8, 9))
    model = sketch.model(sketch.conv("x", 3, 3, bias=np.zeros(3), **SHAPES[name]))
    conv, x = nodes(model, "Conv")[0], sketch.images(1)
    found = receptive_window.window_of(conv)
    assert found is not None

    places, inside = found.read(np.arange(found.n_outputs))
    patches = x.reshape(2, -1)[:, places] * inside  # (channels, pixels, taps)
    product = conv.inputs[1].const_value.numpy().reshape(3, -1) @ patches.transpose(1, 0, 2).reshape(len(places), -1).T

    wanted = ReferenceEvaluator(serialize_model(model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(product.reshape(wanted.shape), wanted, atol=1e-5)


def test_share_inside_is_counted_over_the_outputs() -> None:
    sketch = Sketch(channels=2, pixels=(2, 4))
    conv = nodes(sketch.model(sketch.conv("x", 3, 3, pad=1)), "Conv")[0]

    share = receptive_window.inside(conv)

    np.testing.assert_allclose(share, np.outer([1 / 2, 1, 1 / 2], [3 / 4, 1, 3 / 4]).reshape(-1))


def test_convolution_without_padding_needs_no_share() -> None:
    sketch = Sketch()

    assert receptive_window.inside(nodes(sketch.model(sketch.conv("x", 3, 3)), "Conv")[0]) is None


def test_open_sizes_have_no_window() -> None:
    sketch = Sketch(pixels=("h", "w"))  # type: ignore[arg-type]  # pixels that are not known

    assert receptive_window.window_of(nodes(sketch.model(sketch.conv("x", 3, 3, pad=1)), "Conv")[0]) is None
