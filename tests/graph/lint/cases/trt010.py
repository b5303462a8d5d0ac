"""Graphs for the rule TRT010: pixels that are moved before they are floats."""

from lint_graphs import Case, graph

HEAD = "uint8[1,8,8,4] x) => (float[n,c,h,w] y)"
MOVED = "t = Transpose<perm=[0,3,1,2]>(x) f = Cast<to=1>(t) y = Relu(f)"
CAST = "f = Cast<to=1>(x) t = Transpose<perm=[0,3,1,2]>(f) y = Relu(t)"
ORDERED = "t = Gather<axis=3>(x, i) f = Cast<to=1>(t) y = Relu(f)"

CASES = (
    Case("transposed as uint8", graph(MOVED, head=HEAD), "error", words="Transpose reads the uint8 input 'x'"),
    Case("put in order as uint8", graph(ORDERED, "int64[2] i = {2, 0}", head=HEAD), "error"),
    Case("cast first", graph(CAST, head=HEAD)),
)
