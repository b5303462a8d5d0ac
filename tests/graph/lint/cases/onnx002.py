"""Graphs for the rule ONNX002: training mode."""

from lint_graphs import Case, graph, norm

CASES = (
    Case("BatchNormalization that trains", norm("g", "float[4] g = {1,1,1,1}", mode=1), "error"),
    Case(
        "Dropout that trains",
        graph("y = Dropout(x, r, t)", "float r = {0.5}, bool t = {1}"),
        "error",
        words="Dropout in training mode",
    ),
    Case("Dropout that does not", graph("y = Dropout(x, r, t)", "float r = {0.5}, bool t = {0}")),
)
