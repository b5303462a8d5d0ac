"""Graphs for the rule TRT002: biases in int32, BatchNormalization parameters in int8."""

from lint_graphs import Case, graph, norm

_BIAS = "int32[4,1,1] i = {1,2,3,4}, float u = {0.1}"
_INT32 = "int32[4] i = {1,2,3,4}, float u = {0.1}"
_INT8 = "int8[4] i = {9,9,9,9}, float u = {0.1}"
_UNFOLD = "g = DequantizeLinear(i, u)"
CASES = (
    Case(
        "int32 bias",
        graph("b = DequantizeLinear(i, u)  y = Add(x, b)", _BIAS),
        "error",
        words="DequantizeLinear of int32: a quantized bias",
    ),
    Case("int32 gamma", norm("g", _INT32, _UNFOLD), "error"),
    Case(
        "int8 gamma",
        norm("g", _INT8, _UNFOLD),
        "warning",
        words="quantized BatchNormalization parameters lose accuracy",
    ),
    Case("float gamma", norm("g", "float[4] g = {1,1,1,1}")),
)
