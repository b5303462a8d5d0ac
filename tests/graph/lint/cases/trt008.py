"""Graphs for the rule TRT008: maxima and minima of 8-bit integers."""

from lint_graphs import Case, extremum, graph

CASES = (
    Case("maximum of uint8", extremum("Max", "uint8"), "error"),
    Case("minimum of int8", extremum("Min", "int8"), "error", words="Min of 8-bit integers"),
    Case("maximum of floats", graph("y = Max(x, c)", "float[1] c = {0}")),
)
