"""Graphs for the rule TRT009: scales that are not positive."""

from lint_graphs import Case, pair

CASES = (
    Case("scale of 0", pair("int8 z = {0}", "float s = {0}"), "error"),
    Case("negative scale", pair("int8 z = {0}", "float s = {-0.1}"), "error", words="with a scale of -0.1"),
    Case("positive scale", pair("int8 z = {0}")),
)
