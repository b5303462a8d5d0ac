"""Layers taken out of a concatenation: exact where their output is constant, refused where it would not be."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, array, nodes, run, value
from slim_graphs import measured, slimmed

from deploy_kit.graph import edit, onnx_file
from deploy_kit.records.slimming import errors
from deploy_kit.slimming import bottlenecks, slices, surgery


def dense(seed: int = 0, layers: int = 3, *, new_first: bool = False) -> tuple[Sketch, str, list[str]]:
    sketch, made = Sketch(seed=seed), []
    x = sketch.stem()
    for _ in range(layers):
        inner = sketch.node("Relu", sketch.conv(sketch.norm(x), 16))
        made.append(sketch.conv(inner, 4, 3, pad=1))
        x = sketch.concat(made[-1], x) if new_first else sketch.concat(x, made[-1])
    return sketch, x, made


def emptied(model: ir.Model, names: list[str]) -> tuple[ir.Node, ...]:
    """Set the weights of convolutions to 0; what is left is their bias, drawn here."""
    found = []
    for seed, name in enumerate(names):
        node = value(model, name).producer()
        assert node is not None
        surgery.own_parameters(model, node)
        weight = array(node.inputs[1])
        bias = np.random.default_rng(seed).standard_normal(len(weight))
        surgery.set_parameters(node, np.zeros_like(weight), bias)
        found.append(node)
    return tuple(found)


@pytest.mark.parametrize("new_first", [False, True])
@pytest.mark.parametrize("which", [[0], [2], [0, 1], [0, 1, 2]])
def test_a_constant_layer_is_cut_out_exactly(which: list[int], new_first: bool) -> None:
    sketch, x, made = dense(new_first=new_first)
    squeezed = sketch.node("AveragePool", sketch.conv(sketch.norm(x), 8), kernel_shape=[2, 2], strides=[2, 2])
    inner = sketch.node("Relu", sketch.conv(sketch.norm(squeezed), 16))
    model = sketch.model(sketch.head(sketch.norm(sketch.concat(squeezed, sketch.conv(inner, 4, 3, pad=1)))))
    layers = emptied(model, [made[i] for i in which])
    images = sketch.images(4)
    wanted, n_convolutions = run(model, images)[0], len(nodes(model, "Conv"))

    slices.cut_out(model, layers)

    small = onnx_file.reread(model)
    assert np.abs(run(small, images)[0] - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert len(nodes(small, "Conv")) == n_convolutions - 2 * len(which)


@pytest.mark.parametrize("shape", [None, [1, 18], [0, -1], [-1, 18]])
def test_a_layer_before_the_classifier_shrinks_it(shape: list[int] | None) -> None:
    sketch, x, made = dense()
    model = sketch.model(sketch.head(sketch.norm(x)))
    if shape is not None:  # torch's exporter writes the flattening so
        (flatten,) = nodes(model, "Flatten")
        target = edit.initializer(model, "target", np.array(shape), ir.DataType.INT64)
        made_so = ir.node("Reshape", [flatten.inputs[0], target], {"allowzero": int(0 not in shape)})
        edit.put_in_place(model, flatten, flatten.outputs[0], made_so)
    (gemm,) = nodes(model, "Gemm")
    before = bottlenecks.inputs_of(gemm)
    layers = emptied(model, made[1:])
    images = sketch.images(4)
    wanted = run(model, images)[0]

    slices.cut_out(model, layers)

    small = onnx_file.reread(model)
    assert bottlenecks.inputs_of(nodes(small, "Gemm")[0]) == before - 8
    assert np.abs(run(small, images)[0] - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["padded", "added", "output", "no concatenation"])
def test_a_layer_whose_constant_would_not_stay_one_is_kept(kind: str) -> None:
    sketch = Sketch()
    x = sketch.stem()
    y = sketch.conv(sketch.node("Relu", sketch.conv(x, 16)), 6, 3, pad=1)
    outputs = []
    if kind == "padded":
        z = sketch.conv(sketch.concat(x, y), 4, 3, pad=1)
    elif kind == "added":
        z = sketch.concat(x, sketch.node("Add", x, y))
    elif kind == "output":
        z, outputs = sketch.concat(x, y), [y]
    else:
        z = y
    model = sketch.model(sketch.head(z), *outputs)

    assert slices.cuts_of(value(model, y)) == ()


def test_a_concatenation_of_nothing_but_layers_keeps_them() -> None:
    sketch = Sketch()
    x = sketch.stem()
    first, second = (sketch.conv(sketch.node("Relu", sketch.conv(x, 16)), 4, 3, pad=1) for _ in range(2))
    both = sketch.concat(first, second)
    model = sketch.model(sketch.head(sketch.norm(both)))

    assert all(slices.cuts_of(value(model, name)) for name in (first, second))
    assert slices.offered([value(model, name) for name in (first, second)]) == [(), ()]
    assert slices.offered([value(model, first)]) != [()]


def test_a_layer_that_says_nothing_new_costs_nothing_while_those_before_it_stay() -> None:
    sketch = Sketch(pixels=(6, 6))
    x = sketch.stem(8)
    new = sketch.conv(sketch.node("Relu", sketch.conv(x, 16)), 4, 3, pad=1)
    wide = sketch.concat(x, new)
    middle = np.zeros((4, 8, 3, 3))
    middle[:, :, 1, 1] = sketch.generator.standard_normal((4, 8))
    copy = sketch.node("Conv", sketch.conv(wide, 8), sketch.constant(middle), pads=[1, 1, 1, 1], channels=4)
    model = sketch.model(sketch.head(sketch.norm(sketch.concat(wide, copy))))

    first, second = measured(model, sketch.images(400)).curves

    assert (first.reader, second.reader, first.readers, second.readers) == (new, copy, (1,), ())
    assert len(first.gone) == 1
    assert second.gone[1] < 1e-3 * second.gone[0]  # with `new` beside it, a linear function of what is there
    assert second.gone[1] < 1e-3 * first.gone[0]


def test_what_a_layer_adds_is_what_a_regression_on_those_before_it_leaves() -> None:
    sketch, x, made = dense(layers=3)
    model = sketch.model(sketch.head(sketch.norm(x)))
    images = sketch.images(100)

    found = measured(model, images)

    maps = run(sketch.model(x), images)[0]
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1]).astype(np.float64)
    rows -= rows.mean(0)
    for n, curve in enumerate(found.curves):
        assert (curve.reader, len(curve.gone)) == (made[n], n + 1)
        own = slice(6 + 4 * n, 10 + 4 * n)
        for stay, predicted in enumerate(curve.gone):
            before = rows[:, : 6 + 4 * stay]
            rest = rows[:, own] - before @ np.linalg.lstsq(before, rows[:, own], rcond=None)[0]
            wanted = 0.5 * float((found.sensitivities[n] * (rest.T @ rest / len(rest))).sum())
            assert predicted == pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
def test_a_whole_layer_goes_and_costs_what_was_predicted() -> None:
    sketch, x, _ = dense(layers=4)
    model = sketch.model(sketch.head(sketch.norm(x)))
    images = sketch.images(400)
    found = measured(model, images)

    small, result = slimmed(model, images, (16, 16, 0, 16), found)

    assert (
        result.macs
        == onnx_file.macs(small)
        == found.macs - sum(layer.macs_before - layer.macs_after for layer in result.layers) - found.curves[2].beyond
    )
    assert len(nodes(small, "Conv")) == len(nodes(model, "Conv")) - 2
    fresh = sketch.images(400, seed=3)
    first, second = (run(one, fresh)[0].astype(np.float64) for one in (model, small))
    p, q = (logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in (first, second))
    assert float((np.exp(p) * (p - q)).sum(1).mean()) < 5 * sum(errors(found.curves, (16, 16, 0, 16)))
