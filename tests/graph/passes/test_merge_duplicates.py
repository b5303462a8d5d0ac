"""Tests of the pass `merge_duplicates`: what is equal is merged, what only looks equal is not."""

import numpy as np
import pytest
import tiny_graphs

from deploy_kit.graph.passes import merge_duplicates

X = np.array([[-1.5, 0.0, 2.0, 3.0]], np.float32)


def test_node_that_occurs_twice_is_computed_once() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y) { a = Relu(x) b = Relu(x) y = Sub(a, b) }")

    outcome = merge_duplicates.apply(model)

    assert tiny_graphs.operators(model) == ["Relu", "Sub"]
    assert outcome.fired == 1


def test_weight_that_is_stored_twice_is_stored_once() -> None:
    model = tiny_graphs.parse(
        "g (float[1,4] x) => (float[1,4] y) { a = Mul(x, v) y = Add(a, w) }", v=np.arange(4.0), w=np.arange(4.0)
    )
    (before,) = tiny_graphs.evaluate(model, X)

    outcome = merge_duplicates.apply(model)

    assert (len(model.graph.initializers), outcome.fired) == (1, 1)
    assert np.array_equal(tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0], before)


@pytest.mark.parametrize(
    "body",
    [
        "{ a = LeakyRelu<alpha = 0.1>(x) b = LeakyRelu<alpha = 0.2>(x) y = Sub(a, b) }",
        "{ a = Mul(x, v) b = Mul(x, w) y = Sub(a, b) }",
        "{ a = Sub(x, v) b = Sub(v, x) y = Add(a, b) }",
        "{ a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }",
    ],
    ids=["attribute", "weight", "order of inputs", "random"],
)
def test_nodes_that_differ_stay_apart(body: str) -> None:
    model = tiny_graphs.parse(f"g (float[1,4] x) => (float[1,4] y) {body}", v=np.ones(4), w=np.full(4, 1.001))

    merge_duplicates.apply(model)

    assert len(model.graph) == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.zeros((1, 4)), -np.zeros((1, 4))), (np.ones((1, 4)), np.ones(4)), (np.ones(4), np.full(4, 1 + 2.0**-23))],
    ids=["sign of zero", "shape", "last bit"],
)
def test_weights_that_differ_stay_apart(first: np.ndarray, second: np.ndarray) -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y) { a = Mul(x, v) y = Sub(a, w) }", v=first, w=second)

    outcome = merge_duplicates.apply(model)

    assert (len(model.graph.initializers), outcome.fired) == (2, 0)


def test_two_equal_outputs_of_the_graph_both_stay() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Relu(x) }")

    merge_duplicates.apply(model)

    assert [value.name for value in tiny_graphs.reread(model).graph.outputs] == ["y", "z"]
    assert np.array_equal(*tiny_graphs.evaluate(model, X))
