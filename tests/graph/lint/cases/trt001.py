"""Graphs for the rule TRT001: zero points."""

from lint_graphs import Case, pair

CASES = (
    Case("int8 around 5", pair("int8 z = {5}"), "error", words="QuantizeLinear with a zero point other than 0"),
    Case("uint8 around 128", pair("uint8 z = {128}"), "error"),
    Case("int8 around 0", pair("int8 z = {0}")),
)
