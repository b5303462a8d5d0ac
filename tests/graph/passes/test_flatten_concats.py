"""Tests of the pass `flatten_concats`: every concatenation reads its parts themselves."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
from concat_chains import SHAPE, drawn, parse, read

from deploy_kit.graph.passes import chain_concats, flatten_concats

CASES = {
    "chain": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(x, c) z = Concat<axis=1>(y, d)", "z", ["abcd"], 2),
    "new ones before": ("x = Concat<axis=1>(b, a) y = Concat<axis=1>(c, x)", "y", ["cba"], 1),
    "twice": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(x, x)", "y", ["abab"], 1),
    "negative axis": ("x = Concat<axis=-3>(a, b) y = Concat<axis=-3>(x, c)", "y", ["abc"], 1),
    "an output stays": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(x, c)", "xy", ["ab", "abc"], 1),
    "flat already": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, c)", "xy", ["ab", "abc"], 0),
}


@pytest.mark.parametrize(("body", "outputs", "wanted", "fired"), CASES.values(), ids=CASES)
def test_parts_are_read_themselves(body: str, outputs: str, wanted: list[str], fired: int) -> None:
    inputs = drawn(5)
    model = parse(body, inputs, outputs)

    done = rewriting.rewrite(flatten_concats, model, *inputs)

    assert read(model) == wanted
    assert (done.outcome.fired, done.difference) == (fired, 0)


def test_concatenation_along_another_axis_is_left() -> None:
    inputs = [np.full(SHAPE, value, np.float32) for value in (1, 2)] + [np.ones((1, 4, 3, 4), np.float32)]
    model = parse("x = Concat<axis=1>(a, b) y = Concat<axis=2>(x, c)", inputs, "y")

    done = rewriting.rewrite(flatten_concats, model, *inputs)

    assert (read(model), done.outcome.fired) == (["ab", "xc"], 0)


def test_it_undoes_a_chain() -> None:
    model = tiny_graphs.simplified_model()
    chain_concats.apply(model)
    x = tiny_graphs.images()
    (before,) = tiny_graphs.evaluate(model, x)

    flatten_concats.apply(model)

    parts = [value for node in model.graph if node.op_type == "Concat" for value in node.inputs]
    assert not [value for value in parts if producer(value) == "Concat"]
    assert np.array_equal(before, tiny_graphs.evaluate(tiny_graphs.reread(model), x)[0])


def producer(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    return node.op_type if node is not None else ""
