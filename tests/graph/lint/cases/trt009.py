"""Graphs for the rule TRT009: weights with a scale of 0."""

from lint_graphs import Case, graph, pair

_NODES = "d = DequantizeLinear(w, s)  y = Conv(x, d)"
_WEIGHTS = "int8[4,4,1,1] w = {" + ",".join("0" * 16) + "}"

CASES = (
    Case(
        "weights of a scale of 0",
        graph(_NODES, f"{_WEIGHTS}, float s = {{0}}"),
        "error",
        words="DequantizeLinear with a scale of 0",
    ),
    Case("weights of a positive scale", graph(_NODES, f"{_WEIGHTS}, float s = {{0.1}}")),
    Case("a positive scale", pair("int8 z = {0}")),
)
