"""Graphs for the rule DLA002: large tensors."""

from lint_graphs import Case, graph

_WIDE, _MANY, _MOST = "float[1,4,8,8193]", "float[4097,1,1,1]", "float[4096,8192,1,1]"
CASES = (
    Case(
        "wide", graph("y = Relu(x)", "", f"{_WIDE} x) => (float[n,c,h,w] y)"), "error", "dla", words="'x' is 1×4×8×8193"
    ),
    Case("large batch", graph("y = Relu(x)", "", f"{_MANY} x) => (float[n,c,h,w] y)"), "error", "dla"),
    Case("at the limits", graph("y = Relu(x)", "", f"{_MOST} x) => (float[n,c,h,w] y)"), "", "dla"),
)
