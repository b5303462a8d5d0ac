"""Graphs for the rule OV003: a convolution of a concatenation on a grid of int8."""

from lint_graphs import Case, graph

_WEIGHTS = "float s = {0.1}, float[8,8,1,1] w = {" + ",".join("1" * 64) + "}"


def concat_conv(dtype: str, between: str = "", group: int = 1) -> str:
    """Write Concat, Q, DQ, Conv in a row."""
    weights = _WEIGHTS if group == 1 else "float s = {0.1}, float[8,1,1,1] w = {" + ",".join("1" * 8) + "}"
    body = f"k = Concat<axis = 1>(x, x)  q = QuantizeLinear(k, s, z)  d = DequantizeLinear(q, s, z)  {between}"
    return graph(f"{body}  y = Conv<group = {group}>({'m' if between else 'd'}, w)", f"{dtype} z = {{0}}, {weights}")


_PARTS = "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  k = Concat<axis = 1>(d, d)  y = Conv(k, w)"
CASES = (
    Case(
        "int8",
        concat_conv("int8"),
        "error",
        "openvino:2026.4.1",
        words="it reads a concatenation in int8, and OpenVINO 2026.4.1 computes another result",
    ),
    Case("int8, a newer version", concat_conv("int8"), "warning", "openvino:2026.4.2"),
    Case("int8 and a pool", concat_conv("int8", "m = MaxPool<kernel_shape = [2, 2]>(d)"), "error", "openvino:2026.4.1"),
    Case("parts in int8", graph(_PARTS, f"int8 z = {{0}}, {_WEIGHTS}"), "error", "openvino:2026.4.1"),
    Case("uint8", concat_conv("uint8"), "", "openvino:2026.4.1"),
    Case("depthwise", concat_conv("int8", group=8), "", "openvino:2026.4.1"),
)
