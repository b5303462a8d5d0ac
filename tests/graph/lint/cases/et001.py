"""Graphs for the rule ET001: what is not lowered to XNNPACK."""

from lint_graphs import OPEN_BATCH, PAIR, Case, graph

HALF = "float16[1,4,8,8] x) => (float16[n,c,h,w] y)"
PIXELS = "uint8[1,4,8,8] x) => (float[n,c,h,w] y)"

CASES = (
    Case(
        "half precision", graph("y = Add(x, a)", "float16 a = {1}", HALF), "error", "executorch", words="half precision"
    ),
    Case("pixels", graph("y = Relu(x)", "", PIXELS), "error", "executorch", words="takes float32 alone"),
    Case("open batch", graph("y = Relu(x)", "", OPEN_BATCH), "error", "executorch", words="open batch"),
    Case("an operator", graph("y = Erf(x)"), "error", "executorch", words="operator Erf"),
    Case("INT8", graph(PAIR, "float s = {0.1}, uint8 z = {0}"), "", "executorch"),
    Case("float32 of one image", graph("y = Relu(x)"), "", "executorch"),
)
