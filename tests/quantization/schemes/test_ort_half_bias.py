"""A fault of ONNX Runtime's optimizer on half-precision Q/DQ graphs, held against ONNX's own evaluator.

Its pass WeightBiasQuantization turns the bias of a convolution between Q/DQ pairs into round(b / (s_x · s_w)), and
keeps the quotient in the type of the bias: in float16 it is infinite where b ≥ 65520 · s_x · s_w, and the end of int32
afterwards. In docs/placements.md; once a release is right, `test_the_optimizer_loses_a_half_precision_bias` fails.
"""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
from dense_graphs import quantized, run
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy_kit.graph import lint
from deploy_kit.quantization.schemes import int8_tensorrt

_X = np.zeros((1, 1, 2, 2), np.float16)
_STEP_X, _STEP_W = 0.01, 0.001


def one_convolution(bias: float, dtype: type[np.floating[Any]]) -> ir.Model:
    """Give Q-DQ, a 1×1 convolution with this bias, Q-DQ: (1, 1, 2, 2) of this type."""
    kind = "float16" if dtype == np.float16 else "float"
    text = f"""<ir_version: 10, opset_import: ["": 19]> g ({kind}[1,1,2,2] x) => ({kind}[1,1,2,2] y) {{
        q = QuantizeLinear(x, sx, zero)
        v = DequantizeLinear(q, sx, zero)
        f = DequantizeLinear<axis = 0>(w, sw, zeros)
        c = Conv(v, f, b)
        r = QuantizeLinear(c, sx, zero)
        y = DequantizeLinear(r, sx, zero) }}"""
    floats = {"sx": _STEP_X, "sw": [_STEP_W], "b": [bias]}
    integers = {"zero": 0, "zeros": [0], "w": [[[[100]]]]}
    proto = onnx.parser.parse_model(text)
    for values, of in ((floats, dtype), (integers, np.int8)):
        for name, value in values.items():
            proto.graph.initializer.append(numpy_helper.from_array(np.array(value, of), name))
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def expected(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})[0]


@pytest.mark.parametrize(("bias", "dtype"), [(0.5, np.float16), (1.0, np.float32)])
def test_a_bias_within_reach_or_in_float32_is_kept(bias: float, dtype: type[np.floating[Any]]) -> None:
    model, x = one_convolution(bias, dtype), _X.astype(dtype)

    np.testing.assert_allclose(run(model, x)[0], expected(model, x), atol=_STEP_X)


@pytest.mark.parametrize("how", [{"optimize": False}, {"without": ("WeightBiasQuantization",)}])
def test_a_large_half_precision_bias_is_kept_without_the_pass(how: dict[str, object]) -> None:
    model = one_convolution(1.0, np.float16)

    np.testing.assert_allclose(run(model, _X, **how)[0], expected(model, _X), atol=_STEP_X)


def test_the_optimizer_loses_a_half_precision_bias() -> None:
    model = one_convolution(1.0, np.float16)  # 1 / (0.01 · 0.001) = 100,000

    found = run(model, _X)[0]

    np.testing.assert_allclose(expected(model, _X), 1.0, atol=_STEP_X)
    assert abs(found - 1.0).min() > 0.1, f"onnxruntime {onnxruntime.__version__} keeps it: mend docs/placements.md"


@pytest.mark.parametrize(
    ("bias", "dtype", "lost"), [(0.5, np.float16, False), (1.0, np.float32, False), (1.0, np.float16, True)]
)
def test_lint_finds_the_bias_that_is_lost(bias: float, dtype: type[np.floating[Any]], lost: bool) -> None:
    model = one_convolution(bias, dtype)

    found = [
        finding.code for finding in lint.lint_model(model, lint.LintTarget(engine="onnxruntime", version="1.31.1"))
    ]

    assert found == ["ORT003"] * lost


@pytest.mark.parametrize("convolutions", ["behind_norms", "blocks"])
def test_lint_tells_the_layouts_apart_that_lose_biases(convolutions: str) -> None:
    x = tiny_graphs.images(24, seed=3)
    model = quantized(tiny_graphs.simplified_model(), x, int8_tensorrt, convolutions=convolutions)

    found = {
        finding.code for finding in lint.lint_model(model, lint.LintTarget(engine="onnxruntime", version="1.31.1"))
    }

    assert ("ORT003" in found) is (convolutions == "blocks")
