"""Tests of `explain.floating`: everything that computes in float in a quantized graph is listed, with its reason."""

from collections import Counter
from pathlib import Path

import foreign_grids
import onnx_ir as ir
import pytest
import tiny_graphs

from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import explain

PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
CONSTANTS = (
    "float s = {0.1}, int8 z = {0}, int8[3,3,1,1] i = {1,2,3,4,5,6,7,8,9}, float[3] one = {1,1,1}, "
    "float[4] twice = {1,1,2,2}"
)
WEIGHTS = "w = DequantizeLinear(i, s, z)"


def floats(body: str) -> set[tuple[str, str]]:
    text = f"g (float[1,3,6,6] x) => (float[a,b,c,e] y) <{CONSTANTS}> {{ {PAIR} {WEIGHTS} {body} }}"
    return {(row.operator, row.why) for row in explain.floating(tiny_graphs.parse(text, 20))}


@pytest.mark.parametrize(
    ("body", "operator", "why"),
    [
        ("c = Conv(d, w) y = Gelu(c)", "Gelu", "a curve: no engine here has it on integers"),
        ("c = Conv(d, w) y = Softmax<axis=1>(c)", "Softmax", "a curve: no engine here has it on integers"),
        ("y = LayerNormalization<axis=1>(d, d)", "LayerNormalization", "sums or statistics of each image"),
        (
            'y = Resize<mode="linear">(d, , twice)',
            "Resize",
            "interpolates: its results lie between the steps of a grid",
        ),
        ('y = Resize<mode="nearest">(d, , twice)', "Resize", "gives the output"),
        ("y = Mul(d, d)", "Mul", "two activations are multiplied or divided, as by a gate"),
        ("g = Relu(d) h = Sigmoid(g) y = Conv(h, w)", "Conv", "reads what Sigmoid gives in float"),
        ("y = Conv(x, w)", "Conv", "reads the input itself"),
        ("t = Relu(d) y = Sigmoid(t)", "Relu", "Sigmoid reads its result in float"),
    ],
)
def test_node_in_float_has_its_reason(body: str, operator: str, why: str) -> None:
    assert any(found == operator and said.startswith(why) for found, said in floats(body))


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(d, w) r = Relu(c) p = QuantizeLinear(r, s, z) y = DequantizeLinear(p, s, z)",
        "c = Concat<axis=1>(d, d) p = QuantizeLinear(c, s, z) y = DequantizeLinear(p, s, z)",
        "p = Max(q, z) y = DequantizeLinear(p, s, z)",
        "y = Conv(d, w)",
    ],
)
def test_what_computes_on_integers_is_not_listed(body: str) -> None:
    assert floats(body) == set()


def test_every_node_of_a_foreign_file_is_on_integers_or_has_a_reason(tmp_path: Path) -> None:
    model: ir.Model = onnx_file.load(foreign_grids.FORMS["pytorch-quantization, a scale per tensor"](tmp_path))

    found: Counter[str] = Counter()
    for row in explain.floating(model):
        found[row.operator] += row.n

    assert found == {"Concat": 3, "Flatten": 1, "GlobalAveragePool": 1, "AveragePool": 1}
