"""Graphs for the rule OV002: a dynamic input under int8."""

from lint_graphs import OPEN_BATCH, PAIR, Case, graph, pair

CASES = (
    Case("dynamic", graph(PAIR, "float s = {0.1}, int8 z = {0}", OPEN_BATCH), "warning", "openvino", words="dynamic"),
    Case("fixed", pair("int8 z = {0}"), "", "openvino"),
    Case("float", graph("y = Relu(x)", "", OPEN_BATCH), "", "openvino"),
)
