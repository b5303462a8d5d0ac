"""Tests of the pass `fold_constants`: what does not depend on the input is computed once, and nothing else."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs

from deploy_kit.graph.passes import fold_constants

X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.mark.parametrize(
    "body",
    [
        "{ a = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() b = Neg(a) y = Add(x, b) }",
        "{ s = Shape(x) f = Cast<to = 1>(s) m = ReduceSum<keepdims = 0>(f) y = Add(x, m) }",
        "{ z = CastLike(w, x) y = Add(x, z) }",
        "<int64[2] shape = {1, 4}> { e = Expand(w, shape) y = Add(x, e) }",
        "{ s = Shape(x) e = ConstantOfShape<value = int64[1] {3}>(s) f = CastLike(e, x) y = Add(x, f) }",
    ],
    ids=["arithmetic", "shape", "castlike", "expand", "constant of a shape"],
)
def test_constant_part_is_computed_once(body: str) -> None:
    model = tiny_graphs.parse(f"g (float[1,4] x) => (float[1,4] y) {body}", w=np.array([0.25]))
    (before,) = tiny_graphs.evaluate(model, X)
    nodes = len(model.graph)

    outcome = fold_constants.apply(model)

    assert tiny_graphs.operators(model) == ["Add"]
    assert outcome.fired == nodes - 1
    np.testing.assert_allclose(tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0], before, rtol=1e-7)


def test_large_map_of_one_number_stays_to_be_computed() -> None:
    model = tiny_graphs.parse(
        "g (float[1,65] x) => (float[1,65] y) <int64[2] shape = {1, 65}> { e = ConstantOfShape(shape) y = Add(x, e) }"
    )

    assert fold_constants.apply(model).fired == 0


def test_constants_become_initializers() -> None:
    model = tiny_graphs.parse(
        "g (float[1,4] x) => (float[1,4] y) { a = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() y = Add(x, a) }"
    )

    fold_constants.apply(model)

    (constant,) = model.graph.initializers.values()
    assert constant.const_value.numpy().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_what_depends_on_the_input_stays() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y) { a = Neg(x) b = Relu(a) y = Add(b, x) }")

    outcome = fold_constants.apply(model)

    assert outcome.fired == 0
    assert tiny_graphs.operators(model) == ["Neg", "Relu", "Add"]


def test_shape_of_an_open_batch_stays() -> None:
    model = tiny_graphs.parse("g (float[N,4] x) => (int64[2] y) { y = Shape(x) }")

    fold_constants.apply(model)

    assert tiny_graphs.operators(model) == ["Shape"]


def test_random_numbers_are_drawn_anew_at_each_run() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y) { a = RandomNormal<shape = [1, 4]>() y = Add(x, a) }")

    fold_constants.apply(model)

    assert tiny_graphs.operators(model) == ["RandomNormal", "Add"]


def test_quantized_weight_stays_quantized() -> None:
    """Folding its DequantizeLinear would undo the quantization of a file that brings one."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[1,4] x) => (float[1,4] y) '
        "<int8[4] q = {1, -2, 3, 4}, float s = {0.5}, int8 z = {0}> { w = DequantizeLinear(q, s, z) y = Mul(x, w) }"
    )
    model = ir.serde.deserialize_model(proto)

    fold_constants.apply(model)

    assert tiny_graphs.operators(model) == ["DequantizeLinear", "Mul"]


def test_exporters_leftovers_before_each_convolution_are_gone() -> None:
    model = tiny_graphs.exported_model()
    n_convolutions = tiny_graphs.operators(model).count("Conv")

    fold_constants.apply(model)

    left = set(tiny_graphs.operators(model))
    assert not left & {"Constant", "CastLike", "Shape", "Expand"}
    assert tiny_graphs.operators(model).count("Conv") == n_convolutions
