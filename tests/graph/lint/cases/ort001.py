"""Graphs for the rule ORT001: maxima and minima of 8-bit integers."""

from lint_graphs import Case, extremum, graph

CASES = (
    Case(
        "too old",
        extremum("Max", "uint8"),
        "error",
        "onnxruntime:1.23.2",
        words="Max of integers needs onnxruntime 1.24, here is 1.23.2",
    ),
    Case("version unknown", extremum("Max", "uint8"), "warning", "onnxruntime"),
    Case("new enough", extremum("Max", "uint8"), "", "onnxruntime:1.24.1"),
    Case("of floats", graph("y = Max(x, c)", "float[1] c = {0}"), "", "onnxruntime:1.23.2"),
)
