"""Graphs for the rule TRT007: operators without an importer."""

from lint_graphs import Case, graph

CASES = (
    Case(
        "DynamicQuantizeLinear",
        graph("q, s, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, s, z)"),
        "error",
        words="operator DynamicQuantizeLinear, which TensorRT's parser does not have",
    ),
    Case(
        "ONNX Runtime's own",
        graph("y = com.microsoft.QuickGelu(x)"),
        "error",
        words="operator com.microsoft.QuickGelu, which is ONNX Runtime's own",
    ),
    Case("ONNX's by ONNX Runtime's name", graph("y = com.microsoft.Gelu(x)")),
    Case("Relu", graph("y = Relu(x)")),
)
