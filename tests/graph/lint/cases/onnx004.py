"""Graphs for the rule ONNX004: Q/DQ pairs around a concatenation."""

from lint_graphs import Case, graph

_GRIDS = "float s = {0.1}, float t = {0.2}, int8 z = {0}"
_PARTS = "q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)  r = Relu(x)  p = QuantizeLinear(r, {0}, z)"
_REST = "b = DequantizeLinear(p, {0}, z)  k = Concat<axis = 1>(a, {1})  {2}y = DequantizeLinear(o, {3}, z)"


def concat(grid: str = "s", part: str = "b", behind: str = "o = QuantizeLinear(k, s, z)  ", out: str = "s") -> str:
    """Write two parts, their concatenation and the pair behind it."""
    return graph(f"{_PARTS.format(grid)}  {_REST.format(grid, part, behind, out)}", _GRIDS)


CASES = (
    Case("a part in float", concat(part="r"), "warning", words="some of its parts are quantized", tried=False),
    Case("parts on two grids", concat(grid="t"), "warning", words="on several grids", tried=False),
    Case(
        "another grid behind it",
        concat(behind="o = QuantizeLinear(k, t, z)  ", out="t"),
        "warning",
        words="on several grids",
        tried=False,
    ),
    Case(
        "read as floats",
        concat(behind="n = Sigmoid(k)  o = QuantizeLinear(n, s, z)  "),
        "warning",
        words="nothing quantizes it",
        tried=False,
    ),
    Case("one grid", concat(), tried=False),
    Case("one grid behind a ReLU", concat(behind="m = Relu(k)  o = QuantizeLinear(m, s, z)  "), tried=False),
    Case("floats alone", graph("k = Concat<axis = 1>(x, x)  y = Relu(k)"), tried=False),
)
