"""Tests of the pass `fold_normalization`: what numpy and torch compute, borders included, and each reason to refuse."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch
from pixel_graphs import frames, network, preprocess, taking_pixels

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file, pixel_input
from deploy_kit.graph.passes import fold_normalization

PADDED, UNPADDED = "pads=[1,2,0,1], strides=[2,1]", "strides=[1,2]"


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        (PADDED, ["Transpose", "Cast", "Sub", "Conv", "Relu"]),
        ('auto_pad="SAME_UPPER"', ["Transpose", "Cast", "Sub", "Conv", "Relu"]),
        (UNPADDED, ["Transpose", "Cast", "Conv", "Relu"]),
    ],
)
def test_the_same_function_in_fewer_nodes(color: str, attributes: str, left: list[str]) -> None:
    model = taking_pixels(color, attributes)

    done = rewriting.rewrite(fold_normalization, model, frames(channels=1 if color == "gray" else 3))

    assert (done.outcome.fired, done.operators) == (1, left)
    assert done.difference < 1e-6


def test_a_padded_zero_is_the_mean_pixel_as_torch_pads_it() -> None:
    model, pixels = taking_pixels(attributes=PADDED), frames()
    weight, bias = (torch.tensor(network().graph.initializers[name].const_value.numpy()) for name in "wb")
    tensor = torch.from_numpy(images.normalize(pixels, preprocess()))
    padded = torch.nn.functional.pad(tensor, (2, 1, 1, 0))
    wanted = torch.nn.functional.conv2d(padded, weight, bias, stride=(2, 1)).relu().numpy()

    fold_normalization.apply(model)

    (found,) = tiny_graphs.evaluate(model, pixels)
    assert metrics.relative_difference(wanted, found) < 1e-6


def test_a_batch_norm_in_front_of_the_convolution_is_part_of_the_normalization() -> None:
    draw = np.random.default_rng(2)
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,4,a,b] y) "
        "{ n = BatchNormalization(x, g, b, m, v) y = Conv<pads=[1,1,1,1]>(n, w) }",
        g=[1.5, -0.5, 2], b=[0.1, 0.2, -0.3], m=[0.1, 0, -0.2], v=[1, 2, 0.5], w=draw.standard_normal((4, 3, 3, 3)),
    )  # fmt: skip
    pixel_input.take_pixels(model, preprocess())

    done = rewriting.rewrite(fold_normalization, model, frames())

    assert done.operators == ["Transpose", "Cast", "Sub", "Conv"]
    assert done.difference < 1e-6


def test_a_wrong_mean_is_noticed() -> None:
    model = taking_pixels()
    before = tiny_graphs.evaluate(model, frames())
    fold_normalization.apply(model)
    mean = model.graph.initializers["c.pixel"]
    mean.const_value = ir.Tensor(mean.const_value.numpy() * np.float32(1.001), name="c.pixel")

    after = tiny_graphs.evaluate(model, frames())

    assert max(rewriting.differences(before, after)) > fold_normalization.PASS.promise


def refused(model: ir.Model) -> tuple[tuple[str, int], ...]:
    pixel_input.take_pixels(model, preprocess())
    before = tiny_graphs.operators(model)
    outcome = fold_normalization.apply(model)
    assert (outcome.fired, tiny_graphs.operators(model)) == (0, before)
    return outcome.refused


def test_another_reader_is_refused() -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,4,a,b] y, float[N,3,10,12] z) { y = Conv(x, w) z = Relu(x) }",
        w=np.ones((4, 3, 3, 3)),
    )

    assert refused(model) == (("it does not feed one convolution alone", 1),)


def test_another_operator_is_refused() -> None:
    model = tiny_graphs.parse("g (float[N,3,10,12] x) => (float[N,3,10,12] y) { y = Relu(x) }")

    assert refused(model) == (("Relu follows it, not a convolution", 1),)


def test_groups_are_refused() -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,3,a,b] y) { y = Conv<group=3>(x, w) }", w=np.ones((3, 1, 3, 3))
    )

    assert refused(model) == (("the convolution has groups", 1),)


def test_weights_that_are_fed_are_refused() -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,4,a,b] y) { v = Abs(w) y = Conv(x, v) }", w=np.ones((4, 3, 3, 3))
    )

    assert refused(model) == (("a parameter is not a constant", 1),)


def test_a_channel_that_vanishes_is_refused() -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,10,12] x) => (float[N,4,a,b] y) { n = Mul(x, s) y = Conv(n, w) }",
        s=np.array([1, 0, 1]).reshape(3, 1, 1), w=np.ones((4, 3, 3, 3)),
    )  # fmt: skip

    assert refused(model) == (("a channel is multiplied by 0", 1),)


def test_a_graph_that_takes_floats_is_left_alone() -> None:
    model = network()

    assert fold_normalization.apply(model) == fold_normalization.Outcome(fired=0)
    assert onnx_file.nodes(model) == 2
