"""Graphs for the rule OV001: Concat, Q, DQ, BatchNormalization in a row."""

from lint_graphs import Case, graph


def concat_pair(zero: str) -> str:
    """Write Concat, Q, DQ, BatchNormalization in a row."""
    constants = ", ".join(f"float[8] {name} = {{{','.join('1' * 8)}}}" for name in "abmv")
    body = (
        "k = Concat<axis = 1>(x, x)  q = QuantizeLinear(k, s, z)  d = DequantizeLinear(q, s, z)"
        "  y = BatchNormalization(d, a, b, m, v)"
    )
    return graph(body, f"float s = {{0.1}}, {zero}, {constants}")


CASES = (
    Case(
        "zero point",
        concat_pair("uint8 z = {7}"),
        "error",
        "openvino:2026.4.1",
        words="a concatenation is quantized with a zero point before a BatchNormalization",
    ),
    Case("zero point, a newer version", concat_pair("uint8 z = {7}"), "warning", "openvino:2026.4.2"),
    Case("around 0", concat_pair("uint8 z = {0}"), "", "openvino:2026.4.1"),
)
