"""Graphs for the rule TRT005: operator sets."""

from lint_graphs import Case, graph

CASES = (
    Case(
        "24 for 10.14",
        graph("y = Relu(x)"),
        "warning",
        "tensorrt:10.14",
        opset=24,
        words="operator set 24; TensorRT 10.14 is documented up to 22",
    ),
    Case("24 for 10.15", graph("y = Relu(x)"), "", "tensorrt:10.15", opset=24),
    Case("version unknown", graph("y = Relu(x)"), "", "tensorrt", opset=24),
)
