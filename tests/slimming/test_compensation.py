"""Slimmed graphs: what was planted goes for nothing, errors are as predicted, degenerate layers do no harm."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, nodes, quantized, run
from slim_graphs import measured, planted, resnet, slimmed

from deploy_kit.base.errors import SlimError
from deploy_kit.graph import onnx_file


def divergence(model: ir.Model, other: ir.Model, x: np.ndarray) -> float:
    first, second = (run(one, x)[0].astype(np.float64) for one in (model, other))
    p, q = (logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in (first, second))
    return float((np.exp(p) * (p - q)).sum(1).mean())


def dense(seed: int = 0, layers: int = 3) -> tuple[Sketch, ir.Model]:
    sketch = Sketch(seed=seed)
    x = sketch.stem()
    for _ in range(layers):
        inner = sketch.node("Relu", sketch.conv(sketch.norm(x), 16))
        x = sketch.concat(x, sketch.conv(inner, 4, 3, pad=1))
    return sketch, sketch.model(sketch.head(sketch.norm(x)))


def test_planted_copies_are_found_and_cost_nothing() -> None:
    sketch = Sketch(pixels=(6, 6))
    model = sketch.model(sketch.head(planted(sketch, sketch.node("Relu", sketch.conv("x", 5)), repeats=3, own=4)))
    x = sketch.images(64)
    found = measured(model, x)
    place = next(i for i, curve in enumerate(found.curves) if curve.channels == 12)
    kept = tuple(4 if i == place else curve.channels for i, curve in enumerate(found.curves))

    small, result = slimmed(model, x, kept, found)

    stays = {channel % 4 for channel in found.curves[place].kept(4)}
    assert stays == {0, 1, 2, 3}  # one copy of each
    fresh = sketch.images(32, seed=5)
    wanted = run(model, fresh)[0]
    assert np.abs(run(small, fresh)[0] - wanted).max() < 2e-3 * np.abs(wanted).max()
    assert result.macs == onnx_file.macs(small) < onnx_file.macs(model)


@pytest.mark.slow
def test_the_error_that_is_left_is_the_predicted_one_where_nothing_else_was_removed() -> None:
    sketch, model = dense()
    x = sketch.images(400)
    found = measured(model, x)

    small, result = slimmed(model, x, (8, 16, 16), found)

    layer = result.layers[0]
    assert layer.seen == pytest.approx(layer.predicted, rel=0.2)
    assert (layer.channels, layer.kept) == (16, 8)
    assert 0.2 * layer.predicted < divergence(model, small, sketch.images(400, seed=3)) < 5 * layer.predicted


def test_a_resnet_bottleneck_is_pruned_by_the_same_code() -> None:
    sketch = Sketch(pixels=(6, 6))
    model = sketch.model(sketch.head(resnet(sketch, resnet(sketch, sketch.stem(8)))))
    x = sketch.images(400)
    found = measured(model, x)
    assert [curve.channels for curve in found.curves] == [16, 16]

    small, result = slimmed(model, x, (12, 16), found)

    layer = result.layers[0]
    assert layer.seen == pytest.approx(layer.predicted, rel=0.25)
    assert [node.inputs[1].shape[0] for node in nodes(small, "Conv")[1:3]] == [12, 16]  # type: ignore[union-attr,index]
    assert divergence(model, small, sketch.images(400, seed=3)) < 5 * layer.predicted


@pytest.mark.slow
def test_a_two_way_dense_layer_is_pruned_by_the_same_code() -> None:
    sketch = Sketch(pixels=(6, 6))
    x = sketch.stem(8)
    for _ in range(2):  # PeleeNet's: one branch of a 3×3 convolution, one of two
        near = sketch.node("Relu", sketch.conv(x, 16))
        far = sketch.node("Relu", sketch.conv(x, 8))
        far = sketch.node("Relu", sketch.conv(far, 16, 3, pad=1))
        x = sketch.concat(x, sketch.conv(near, 4, 3, pad=1), sketch.conv(far, 4, 3, pad=1))
    model = sketch.model(sketch.head(sketch.norm(x)))
    images = sketch.images(400)
    found = measured(model, images)
    assert [curve.channels for curve in found.curves] == [
        16
    ] * 4  # of the second branch the larger place: between its two 3×3

    small, result = slimmed(model, images, (8, 8, 16, 16), found)

    for layer in result.layers[:2]:
        assert layer.seen == pytest.approx(layer.predicted, rel=0.3)
    predicted = sum(layer.predicted for layer in result.layers)
    assert divergence(model, small, sketch.images(400, seed=3)) < 5 * predicted


@pytest.mark.slow
def test_refits_make_up_for_most_of_what_a_plain_removal_loses() -> None:
    sketch, model = dense()
    x = sketch.images(400)
    found = measured(model, x)

    small, _ = slimmed(model, x, (8, 8, 8), found)

    plain = onnx_file.reread(model)
    for place, curve in zip(nodes(plain, "Conv")[2::2], found.curves, strict=True):
        weight = place.inputs[1]
        assert weight is not None and weight.const_value is not None
        array = weight.const_value.numpy().copy()
        array[:, list(curve.order[:8])] = 0
        weight.const_value = ir.Tensor(array, name=weight.name)
    fresh = sketch.images(200, seed=3)
    assert divergence(model, small, fresh) < 0.5 * divergence(model, plain, fresh)


def test_a_bn_between_the_two_convolutions_is_cut_as_well() -> None:
    sketch = Sketch()
    inner = sketch.norm(sketch.conv(sketch.stem(), 16))
    model = sketch.model(sketch.head(sketch.conv(inner, 4, 3, pad=1)))
    x = sketch.images(100)
    found = measured(model, x)

    small, _ = slimmed(model, x, tuple(c.channels // 2 for c in found.curves), found)

    assert np.isfinite(run(small, x[:4])[0]).all()


def test_dead_channels_go_first_and_the_answers_stay() -> None:
    sketch = Sketch(pixels=(6, 6))
    bias = np.where(np.arange(16) % 2, -100.0, 0.1)
    inner = sketch.node("Relu", sketch.conv(sketch.norm(sketch.stem()), 16, bias=bias))
    model = sketch.model(sketch.head(sketch.conv(inner, 4, 3, pad=1)))
    x = sketch.images(64)
    found = measured(model, x)
    place = next(i for i, curve in enumerate(found.curves) if curve.channels == 16)
    kept = tuple(8 if i == place else curve.channels for i, curve in enumerate(found.curves))

    small, _ = slimmed(model, x, kept, found)

    assert set(found.curves[place].order[:8]) == set(range(1, 16, 2))
    fresh = sketch.images(16, seed=5)
    wanted = run(model, fresh)[0]
    assert np.abs(run(small, fresh)[0] - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_one_image_gives_a_graph_with_finite_answers() -> None:
    sketch, model = dense()

    small, _ = slimmed(model, sketch.images(1), (8, 8, 8))

    assert np.isfinite(run(small, sketch.images(8, seed=2))[0]).all()


def test_activations_that_are_not_finite_are_refused_with_the_layer() -> None:
    sketch, model = dense()
    x = sketch.images(8)
    x[3] = 1e38

    with pytest.raises(SlimError, match=r"the gradients at '[^']+' are not finite on these images"):
        measured(model, x)


def test_the_same_images_give_the_same_bytes() -> None:
    sketch, model = dense()
    x = sketch.images(40)

    first, second = (slimmed(model, x, (8, 16, 8))[0] for _ in range(2))

    assert ir.serde.serialize_model(first).SerializeToString(deterministic=True) == ir.serde.serialize_model(
        second
    ).SerializeToString(deterministic=True)


def test_the_file_says_that_it_is_another_network() -> None:
    sketch, model = dense()

    small, result = slimmed(model, sketch.images(20), (8, 16, 16))

    said = json.loads(small.metadata_props[onnx_file.SLIMMED_KEY])
    assert said["macs_before"] == onnx_file.macs(model)
    assert said["macs_after"] == result.macs
    assert said["channels"][result.layers[0].name] == [16, 8]


@pytest.mark.slow
def test_int8_composes() -> None:
    sketch, model = dense()
    x = sketch.images(64)
    small, _ = slimmed(model, x, (8, 8, 8))

    integers = quantized(small, x)

    wanted = run(small, x)[0]
    assert np.abs(run(integers, x)[0] - wanted).max() < 0.3 * np.abs(wanted).max()
