"""Graphs for the rule NCNN001: what is not a float graph of one image."""

from lint_graphs import OPEN_BATCH, PAIR, Case, graph

SCALE = "float s = {0.1}, uint8 z = {0}"
HALF = "float16[1,4,8,8] x) => (float16[n,c,h,w] y)"
MIXED = "a = Add(x, f)  c = Cast<to = 10>(a)  d = Add(c, h)  y = Cast<to = 1>(d)"
MIXED_WEIGHTS = "float[1,1] f = {1}, float16[1,1] h = {1}"
PIXELS = "uint8[1,4,8,8] x) => (float[n,c,h,w] y)"

CASES = (
    Case("INT8", graph(PAIR, SCALE), "error", "ncnn", words="INT8"),
    Case("two types", graph(MIXED, MIXED_WEIGHTS), "error", "ncnn", words="some weights are float32 and some in half"),
    Case("half precision", graph("y = Add(x, a)", "float16 a = {1}", HALF), "", "ncnn"),
    Case("pixels", graph("y = Cast<to = 1>(x)", "", PIXELS), "error", "ncnn", words="takes float32 alone"),
    Case("open batch", graph("y = Relu(x)", "", OPEN_BATCH), "error", "ncnn", words="one image at a time"),
    Case("float32 of one image", graph("y = Relu(x)"), "", "ncnn"),
)
