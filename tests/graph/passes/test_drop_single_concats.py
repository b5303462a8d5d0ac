"""Tests of the pass `drop_single_concats`: Concat of one tensor goes, of more stays."""

import numpy as np
import pytest
import tiny_graphs

from deploy_kit.graph.passes import drop_single_concats

X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("{ a = Concat<axis = 1>(x) y = Relu(a) }", ["Relu"]),
        ("{ a = Relu(x) b = Concat<axis = 1>(a) y = Neg(b) }", ["Relu", "Neg"]),
        ("{ a = Concat<axis = 1>(x) b = Concat<axis = 0>(a) y = Relu(b) }", ["Relu"]),
        ("{ a = Concat<axis = 1>(x) b = Relu(a) c = Neg(a) y = Add(b, c) }", ["Relu", "Neg", "Add"]),
    ],
    ids=["of the input", "in between", "chain", "two readers"],
)
def test_concats_of_one_tensor_are_dropped_and_counted(body: str, left: list[str]) -> None:
    model = tiny_graphs.parse(f"g (float[1,4] x) => (float[1,4] y) {body}")
    (before,) = tiny_graphs.evaluate(model, X)
    nodes = len(model.graph)

    outcome = drop_single_concats.apply(model)

    assert tiny_graphs.operators(model) == left
    assert (outcome.fired, outcome.refused) == (nodes - len(left), ())
    assert np.array_equal(tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0], before)


def test_concat_of_two_tensors_stays() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,8] y) { a = Concat<axis = 1>(x, x) y = Relu(a) }")

    outcome = drop_single_concats.apply(model)

    assert outcome.fired == 0
    assert tiny_graphs.operators(model) == ["Concat", "Relu"]


def test_concat_that_makes_an_output_stays_and_says_why() -> None:
    model = tiny_graphs.parse("g (float[1,4] x) => (float[1,4] y) { y = Concat<axis = 1>(x) }")

    outcome = drop_single_concats.apply(model)

    assert (outcome.fired, outcome.refused) == (0, (("it makes an output of the graph", 1),))
    assert tiny_graphs.operators(model) == ["Concat"]
