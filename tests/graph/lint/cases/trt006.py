"""Graphs for the rule TRT006: activations in uint8."""

from lint_graphs import Case, pair

CASES = (
    Case(
        "uint8 around 0", pair("uint8 z = {0}"), "warning", words="QuantizeLinear to uint8, and TensorRT documents int8"
    ),
    Case("int8 around 0", pair("int8 z = {0}")),
)
