"""Graphs for the rule DLA003: the axis of a concatenation."""

from lint_graphs import Case, graph

CASES = (
    Case(
        "along rows",
        graph("y = Concat<axis = 2>(x, x)"),
        "warning",
        "dla",
        words="Concat along axis 2, and the DLA does it along channels only",
    ),
    Case("along channels from behind", graph("y = Concat<axis = -3>(x, x)"), "", "dla"),
)
