"""Graphs for the rule TRT003: a Reshape to a fixed batch."""

from lint_graphs import Case, reshape

CASES = (
    Case(
        "to a batch of 1", reshape("1,256"), "error", words="Reshape to a batch of 1, and the input's batch is dynamic"
    ),
    Case("batch copied", reshape("0,256")),
    Case("batch computed", reshape("-1,256")),
    Case("batch of 1 under a batch of 1", reshape("1,256", batch="1")),
)
