"""Tests of the pass `fold_scale`: Caffe's Mul and Add, against ONNX's own evaluator, and each reason not to fold."""

import re

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs

from deploy_kit.accuracy import metrics
from deploy_kit.graph.passes import fold_batchnorm, fold_scale

X = np.random.default_rng(7).standard_normal((1, 2, 5, 5)).astype(np.float32)
CONV = "c = Conv<pads=[1,1,1,1]>(x, w)"
NORM = "BatchNormalization<epsilon = 0.001>(c, g, b, m, v)"


def graph(body: str, channels: int = 4) -> str:
    return f"g (float[1,2,5,5] x) => (float[1,{channels},5,5] y) {{ {body} }}"


def parse(text: str, **weights: np.ndarray) -> ir.Model:
    generator = np.random.default_rng(0)
    drawn = {
        "w": generator.standard_normal((4, 2, 3, 3), np.float32),
        "d": generator.standard_normal(4, np.float32),
        "g": np.array([1.5, -0.7, 0.01, 2.0], np.float32),
        "b": generator.standard_normal(4, np.float32),
        "m": generator.standard_normal(4, np.float32),
        "v": np.array([0.5, 3.0, 1e-6, 10.0], np.float32),
        "s": np.array([2.0, -0.5, 3.0, 0.25], np.float32).reshape(4, 1, 1),
        "t": generator.standard_normal((1, 4, 1, 1)).astype(np.float32),
        "k": np.array(0.5, np.float32),
    }
    used = {name: value for name, value in (drawn | weights).items() if re.search(rf"[(,] ?{name}[,)]", text)}
    return tiny_graphs.parse(text, **used)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"{CONV} p = Mul(c, s) q = Add(p, t) y = Relu(q)", ["Conv", "Relu"]),
        (f"{CONV} p = Mul(s, c) y = Add(t, p)", ["Conv"]),
        (f"{CONV.replace('x, w', 'x, w, d')} p = Sub(c, t) y = Div(p, s)", ["Conv"]),
        (f"{CONV} y = Mul(c, k)", ["Conv"]),
        (f"{CONV} r = Relu(c) n = {NORM.replace('(c', '(r')} p = Mul(n, s) y = Add(p, t)",
         ["Conv", "Relu", "BatchNormalization"]),
    ],
    ids=["conv", "constant first", "sub and div", "scalar", "batchnorm"],
)  # fmt: skip
def test_graph_computes_what_it_did(body: str, left: list[str]) -> None:
    model = parse(graph(body))
    (before,) = tiny_graphs.evaluate(model, X)

    outcome = fold_scale.apply(model)

    reread = tiny_graphs.reread(model)
    (after,) = tiny_graphs.evaluate(reread, X)
    assert operators(reread) == left
    assert outcome.fired > 0
    assert outcome.refused == ()
    assert np.abs(before).max() > 0
    assert metrics.relative_difference(before, after) <= 1e-6


def test_batchnorm_with_its_scale_folds_into_the_convolution_before_it() -> None:
    model = parse(graph(f"{CONV} n = {NORM} p = Mul(n, s) y = Add(p, t)"))
    (before,) = tiny_graphs.evaluate(model, X)

    fold_scale.apply(model)
    fold_batchnorm.apply(model)

    assert operators(model) == ["Conv"]
    assert metrics.relative_difference(before, tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0]) <= 1e-6


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        (f"{CONV} p = Mul(c, s) y = Add(c, p)", {}, "the Conv before it feeds others too"),
        (f"{CONV} y = Mul(c, s)", {"s": np.ones((5, 1), np.float32)}, "its shape is not that of one number a channel"),
        (f"{CONV} y = Mul(c, s)", {"s": np.ones(5, np.float32)}, "its shape is not that of one number a channel"),
        (f"{CONV} y = Div(c, s)", {"s": np.zeros((4, 1, 1), np.float32)}, "it divides by 0"),
        (f"w2 = Neg(w) {CONV.replace('x, w', 'x, w2')} y = Mul(c, s)", {}, "a parameter is not a constant"),
    ],
    ids=["two readers", "rows", "columns", "zero", "computed"],
)
def test_what_cannot_fold_is_left_with_its_reason(body: str, weights: dict[str, np.ndarray], reason: str) -> None:
    model = parse(graph(body), **weights)
    before = operators(model)

    outcome = fold_scale.apply(model)

    assert operators(model) == before
    assert outcome.fired == 0
    assert outcome.refused == ((reason, 1),)


def test_a_constant_divided_by_a_convolution_is_no_scale() -> None:
    model = parse(graph(f"{CONV} y = Div(s, c)"))

    assert fold_scale.apply(model).fired == 0
    assert operators(model) == ["Conv", "Div"]
