"""Graphs for the rule ORT003: half-precision biases between Q/DQ pairs."""

from lint_graphs import Case, graph


def biased(bias: int, *, quantized: bool = True) -> str:
    """Write a float16 convolution behind Q and DQ with steps of 0.01 and 0.001; numbers are float16's bits."""
    constants = f"float16 s = {{8479}}, float16[1] t = {{5145}}, float16[1] b = {{{bias}}}"
    integers = "int8 z = {0}, int8[1] zz = {0}, int8[1,4,1,1] w = {1,2,3,100}"
    conv = (
        "h = Cast<to = 10>(x)  q = QuantizeLinear(h, s, z)  d = DequantizeLinear(q, s, z)"
        "  f = DequantizeLinear<axis = 0>(w, t, zz)  c = Conv(d, f, b)"
    )
    end = "r = QuantizeLinear(c, s, z)  e = DequantizeLinear(r, s, z)" if quantized else "e = Relu(c)"
    return graph(f"{conv}  {end}  y = Cast<to = 1>(e)", f"{constants}, {integers}")


CASES = (
    Case(
        "half-precision bias",
        biased(15360),
        "error",
        "onnxruntime:1.31.1",
        opset=19,
        words="a float16 bias of 9.99e+04 steps of its input and weight, and float16 ends at 65504",
    ),
    Case("small bias", biased(14336), "", "onnxruntime:1.31.1", opset=19),
    Case("nothing quantized behind", biased(15360, quantized=False), "", "onnxruntime:1.31.1", opset=19),
)
