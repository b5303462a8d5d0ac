"""Graphs for the rule DLA001: dynamic axes."""

from lint_graphs import OPEN_BATCH, Case, graph

CASES = (
    Case("dynamic", graph("y = Relu(x)", "", OPEN_BATCH), "error", "dla", words="dynamic"),
    Case("fixed", graph("y = Relu(x)"), "", "dla"),
)
