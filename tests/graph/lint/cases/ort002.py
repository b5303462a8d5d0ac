"""Graphs for the rule ORT002: operator sets and IR versions."""

from lint_graphs import Case, graph

CASES = (
    Case(
        "operator set",
        graph("y = Relu(x)"),
        "error",
        "onnxruntime:1.20.1",
        opset=22,
        words="operator set 22; onnxruntime 1.20.1 reads up to 21",
    ),
    Case(
        "IR version",
        graph("y = Relu(x)"),
        "error",
        "onnxruntime:1.22.2",
        ir=11,
        words="IR version 11; onnxruntime 1.22.2 reads up to 10",
    ),
    Case("both as it reads them", graph("y = Relu(x)"), "", "onnxruntime:1.22.1", opset=22, ir=10),
    Case("older than every row", graph("y = Relu(x)"), "", "onnxruntime:1.14", opset=22),
)
