"""Graphs for the rule ONNX003: scales that are no positive numbers."""

from lint_graphs import Case, graph, pair

_WEIGHTS = "d = DequantizeLinear(w, s)  y = Conv(x, d)"
_CONSTANTS = "int8[4,4,1,1] w = {" + ",".join("0" * 16) + "}"

CASES = (
    Case("scale of 0", pair("int8 z = {0}", "float s = {0}"), "error"),
    Case("negative scale", pair("int8 z = {0}", "float s = {-0.1}"), "error", words="with a scale of -0.1"),
    Case(
        "weights of a negative scale",
        graph(_WEIGHTS, f"{_CONSTANTS}, float s = {{-1}}"),
        "error",
        words="DequantizeLinear with a scale of -1",
    ),
    Case("positive scale", pair("int8 z = {0}")),
    Case("weights of a scale of 0", graph(_WEIGHTS, f"{_CONSTANTS}, float s = {{0}}"), target="onnxruntime"),
)
