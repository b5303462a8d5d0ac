"""Graphs for the rule NCNN001: what is not a float32 graph of one image."""

from lint_graphs import OPEN_BATCH, PAIR, Case, graph

SCALE = "float s = {0.1}, uint8 z = {0}"
HALF = "float16[1,4,8,8] x) => (float16[n,c,h,w] y)"
PIXELS = "uint8[1,4,8,8] x) => (float[n,c,h,w] y)"

CASES = (
    Case("INT8", graph(PAIR, SCALE), "error", "ncnn", words="INT8"),
    Case("half precision", graph("y = Add(x, a)", "float16 a = {1}", HALF), "error", "ncnn", words="half precision"),
    Case("pixels", graph("y = Cast<to = 1>(x)", "", PIXELS), "error", "ncnn", words="takes float32 alone"),
    Case("open batch", graph("y = Relu(x)", "", OPEN_BATCH), "error", "ncnn", words="one image at a time"),
    Case("float32 of one image", graph("y = Relu(x)"), "", "ncnn"),
)
