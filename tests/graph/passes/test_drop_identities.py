"""Tests of the pass `drop_identities`: what hands its input through goes, what does not stays."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small_cnns
import tiny_graphs

from deploy_kit.graph import onnx_file
from deploy_kit.graph.passes import drop_identities

X = np.linspace(-2, 2, 4, dtype=np.float32)


def parse(body: str, opset: int = 18, **weights: np.ndarray) -> ir.Model:
    return tiny_graphs.parse(f"g (float[4] x) => (float[4] y) {body}", opset, **weights)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("{ a = Identity(x) y = Relu(a) }", ["Relu"]),
        ("{ a = Relu(x) y = Identity(a) }", ["Relu"]),
        ("{ a = Identity(x) b = Identity(a) y = Relu(b) }", ["Relu"]),
        ("{ a = Identity(x) b = Relu(a) c = Neg(a) y = Add(b, c) }", ["Relu", "Neg", "Add"]),
        ("{ a = Dropout(x) y = Relu(a) }", ["Relu"]),
        ("{ a = Dropout<seed = 3>(x, r) y = Relu(a) }", ["Relu"]),
        ("<bool off = {0}> { a = Dropout(x, r, off) y = Relu(a) }", ["Relu"]),
    ],
    ids=["identity", "at the output", "chain", "two readers", "dropout", "with a ratio", "training off"],
)
def test_nodes_that_hand_through_are_dropped_and_counted(body: str, left: list[str]) -> None:
    model = parse(body, r=np.array(0.5))
    (before,) = tiny_graphs.evaluate(model, X)
    nodes = len(model.graph)

    outcome = drop_identities.apply(model)

    assert tiny_graphs.operators(model) == left
    assert outcome.fired == nodes - len(left)
    assert np.array_equal(tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0], before)


def test_dropout_of_an_older_operator_set_is_dropped() -> None:
    model = parse("{ a = Dropout<ratio = 0.5>(x) y = Relu(a) }", opset=10)

    drop_identities.apply(model)

    assert tiny_graphs.operators(model) == ["Relu"]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[4] x) => (float[4] y) <bool on = {1}> { a = Dropout(x, r, on) y = Relu(a) }",
        "g (float[4] x, bool mode) => (float[4] y) { a = Dropout(x, r, mode) y = Relu(a) }",
        "g (float[4] x) => (float[4] y, bool[4] kept) { a, kept = Dropout(x) y = Relu(a) }",
    ],
    ids=["training", "mode unknown", "mask is read"],
)
def test_dropout_that_may_do_something_stays(text: str) -> None:
    model = tiny_graphs.parse(text, r=np.array(0.5))

    outcome = drop_identities.apply(model)

    assert tiny_graphs.operators(model) == ["Dropout", "Relu"]
    assert outcome.fired == 0


def test_output_of_the_graph_keeps_its_name() -> None:
    model = parse("{ a = Relu(x) y = Identity(a) }")

    drop_identities.apply(model)

    assert [value.name for value in model.graph.outputs] == ["y"]


def test_identity_between_input_and_output_stays() -> None:
    model = parse("{ y = Identity(x) }")

    outcome = drop_identities.apply(model)

    assert outcome.fired == 0
    assert tiny_graphs.operators(tiny_graphs.reread(model)) == ["Identity"]


def test_identity_that_is_a_branch_stays(tmp_path: Path) -> None:
    """What torch's tracer writes for `squeeze`: the branch's result is a value from outside, by an Identity."""
    x = small_cnns.pixels()
    model = ir.serde.deserialize_model(small_cnns.with_condition())

    drop_identities.apply(model)

    onnx_file.save(model, tmp_path / "model.onnx")
    wanted = small_cnns.by_torch(x)
    assert np.abs(small_cnns.computed(tmp_path / "model.onnx", x) - wanted).max() < 1e-5 * np.abs(wanted).max()
