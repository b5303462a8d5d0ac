"""Graphs for the rule TRT004: float16 activations by their recorded ranges."""

from lint_graphs import Case, graph

_HALF = "f = Cast<to = 10>(x)  g = Relu(f)  y = Cast<to = 1>(g)"
CASES = (
    Case(
        "beyond the end",
        graph(_HALF),
        "error",
        metadata='{"g": 70000}',
        words="an activation of float16 reaches 70000, and float16 ends at 65504",
        tried=False,
    ),
    Case("near the end", graph(_HALF), "warning", metadata='{"g": 40000}', tried=False),
    Case("far from it", graph(_HALF), metadata='{"g": 12.5}', tried=False),
    Case("ranges unknown", graph(_HALF), "note", words="ranges unknown", tried=False),
    Case("no float16", graph("y = Relu(x)"), tried=False),
)
