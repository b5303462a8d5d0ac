"""Minimal graphs in ONNX's own text form: for each rule one where it applies, and one beside it where it does not."""

from dataclasses import dataclass

import onnx

_HEAD = "float[1,4,8,8] x) => (float[n,c,h,w] y)"
_PAIR = "q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)  y = Relu(a)"
_HALF = "f = Cast<to = 10>(x)  g = Relu(f)  y = Cast<to = 1>(g)"


@dataclass(frozen=True)
class Case:
    """A graph, the rule it is about, and the level that the rule must find; empty if it must find nothing."""

    rule: str
    name: str
    text: str
    level: str = ""
    target: str = "tensorrt_rtx"
    opset: int = 17
    ir: int = 8
    metadata: str = ""

    @property
    def id(self) -> str:
        return f"{self.rule}: {self.name}"

    def proto(self) -> onnx.ModelProto:
        """Parse the graph; ONNX's checker accepts it."""
        domains = f'"" : {self.opset}, "com.microsoft" : 1'
        model = onnx.parser.parse_model(f"<ir_version: {self.ir}, opset_import: [{domains}]>\n{self.text}")
        if self.metadata:
            onnx.helper.set_model_props(model, {"deploykit.ranges": self.metadata})
        onnx.checker.check_model(model)
        return model


def graph(body: str, constants: str = "", head: str = _HEAD) -> str:
    """Write a graph: its input and output, constants, nodes."""
    return f"g ({head} {f'<{constants}>' if constants else ''} {{ {body} }}"


def pair(zero: str, scale: str = "float s = {0.1}") -> str:
    """Write a QuantizeLinear and its DequantizeLinear around one zero point."""
    return graph(_PAIR, f"{scale}, {zero}")


def norm(gamma: str, constants: str, nodes: str = "", mode: int = 0) -> str:
    """Write a BatchNormalization whose first parameter is `gamma`."""
    rest = "float[4] b = {0,0,0,0}, float[4] m = {0,0,0,0}, float[4] v = {1,1,1,1}"
    body = f"{nodes} y = BatchNormalization<training_mode = {mode}>(x, {gamma}, b, m, v)"
    return graph(body, f"{constants}, {rest}")


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


def concat_pair(zero: str) -> str:
    """Write Concat, Q, DQ, BatchNormalization in a row."""
    constants = ", ".join(f"float[8] {name} = {{{','.join('1' * 8)}}}" for name in "abmv")
    body = (
        "k = Concat<axis = 1>(x, x)  q = QuantizeLinear(k, s, z)  d = DequantizeLinear(q, s, z)"
        "  y = BatchNormalization(d, a, b, m, v)"
    )
    return graph(body, f"float s = {{0.1}}, {zero}, {constants}")


def reshape(shape: str, batch: str = "N") -> str:
    """Write a Reshape of four maps into rows."""
    sides = len(shape.split(","))
    return graph(
        "y = Reshape(x, r)",
        f"int64[{sides}] r = {{{shape}}}",
        f"float[{batch},4,8,8] x) => (float[{'n,' * (sides - 1)}m] y)",
    )


def extremum(op: str, dtype: str) -> str:
    """Write a maximum or minimum between Q and DQ."""
    body = f"q = QuantizeLinear(x, s, z)  k = {op}(q, c)  y = DequantizeLinear(k, s, z)"
    return graph(body, f"float s = {{0.1}}, {dtype} z = {{0}}, {dtype}[1] c = {{3}}")


_BIAS = "int32[4,1,1] i = {1,2,3,4}, float u = {0.1}"
_WIDE, _MANY, _MOST = "float[1,4,8,8193]", "float[4097,1,1,1]", "float[4096,8192,1,1]"
_INT32 = "int32[4] i = {1,2,3,4}, float u = {0.1}"
_INT8 = "int8[4] i = {9,9,9,9}, float u = {0.1}"
_UNFOLD = "g = DequantizeLinear(i, u)"

TENSORRT = (
    Case("trt001", "int8 around 5", pair("int8 z = {5}"), "error"),
    Case("trt001", "uint8 around 128", pair("uint8 z = {128}"), "error"),
    Case("trt001", "int8 around 0", pair("int8 z = {0}")),
    Case("trt002", "int32 bias", graph("b = DequantizeLinear(i, u)  y = Add(x, b)", _BIAS), "error"),
    Case("trt002", "int32 gamma", norm("g", _INT32, _UNFOLD), "error"),
    Case("trt002", "int8 gamma", norm("g", _INT8, _UNFOLD), "warning"),
    Case("trt002", "float gamma", norm("g", "float[4] g = {1,1,1,1}")),
    Case("trt003", "to a batch of 1", reshape("1,256"), "error"),
    Case("trt003", "batch copied", reshape("0,256")),
    Case("trt003", "batch computed", reshape("-1,256")),
    Case("trt003", "batch of 1 under a batch of 1", reshape("1,256", batch="1")),
    Case("trt006", "uint8 around 0", pair("uint8 z = {0}"), "warning"),
    Case("trt006", "int8 around 0", pair("int8 z = {0}")),
    Case(
        "trt007", "DynamicQuantizeLinear",
        graph("q, s, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, s, z)"), "error",
    ),
    Case("trt007", "ONNX Runtime's own", graph("y = com.microsoft.QuickGelu(x)"), "error"),
    Case("trt007", "ONNX's by ONNX Runtime's name", graph("y = com.microsoft.Gelu(x)")),
    Case("trt007", "Relu", graph("y = Relu(x)")),
    Case("trt008", "maximum of uint8", extremum("Max", "uint8"), "error"),
    Case("trt008", "minimum of int8", extremum("Min", "int8"), "error"),
    Case("trt008", "maximum of floats", graph("y = Max(x, c)", "float[1] c = {0}")),
    Case("trt009", "scale of 0", pair("int8 z = {0}", "float s = {0}"), "error"),
    Case("trt009", "negative scale", pair("int8 z = {0}", "float s = {-0.1}"), "error"),
    Case("trt009", "positive scale", pair("int8 z = {0}")),
    Case("onnx002", "BatchNormalization that trains", norm("g", "float[4] g = {1,1,1,1}", mode=1), "error"),
    Case("onnx002", "Dropout that trains", graph("y = Dropout(x, r, t)", "float r = {0.5}, bool t = {1}"), "error"),
    Case("onnx002", "Dropout that does not", graph("y = Dropout(x, r, t)", "float r = {0.5}, bool t = {0}")),
)  # fmt: skip

OTHERS = (
    Case("trt004", "beyond the end", graph(_HALF), "error", metadata='{"g": 70000}'),
    Case("trt004", "near the end", graph(_HALF), "warning", metadata='{"g": 40000}'),
    Case("trt004", "far from it", graph(_HALF), metadata='{"g": 12.5}'),
    Case("trt004", "ranges unknown", graph(_HALF), "note"),
    Case("trt004", "no float16", graph("y = Relu(x)")),
    Case("trt005", "24 for 10.14", graph("y = Relu(x)"), "warning", "tensorrt:10.14", opset=24),
    Case("trt005", "24 for 10.15", graph("y = Relu(x)"), "", "tensorrt:10.15", opset=24),
    Case("trt005", "version unknown", graph("y = Relu(x)"), "", "tensorrt", opset=24),
    Case("ort001", "too old", extremum("Max", "uint8"), "error", "onnxruntime:1.23.2"),
    Case("ort001", "version unknown", extremum("Max", "uint8"), "warning", "onnxruntime"),
    Case("ort001", "new enough", extremum("Max", "uint8"), "", "onnxruntime:1.24.1"),
    Case("ort001", "of floats", graph("y = Max(x, c)", "float[1] c = {0}"), "", "onnxruntime:1.23.2"),
    Case("ort003", "half-precision bias", biased(15360), "error", "onnxruntime:1.31.1", opset=19),
    Case("ort003", "small bias", biased(14336), "", "onnxruntime:1.31.1", opset=19),
    Case("ort003", "nothing quantized behind", biased(15360, quantized=False), "", "onnxruntime:1.31.1", opset=19),
    Case("ort002", "operator set", graph("y = Relu(x)"), "error", "onnxruntime:1.20.1", opset=22),
    Case("ort002", "IR version", graph("y = Relu(x)"), "error", "onnxruntime:1.22.2", ir=11),
    Case("ort002", "both as it reads them", graph("y = Relu(x)"), "", "onnxruntime:1.22.1", opset=22, ir=10),
    Case("ort002", "older than every row", graph("y = Relu(x)"), "", "onnxruntime:1.14", opset=22),
    Case("ov001", "zero point", concat_pair("uint8 z = {7}"), "error", "openvino:2026.4.1"),
    Case("ov001", "zero point, a newer version", concat_pair("uint8 z = {7}"), "warning", "openvino:2026.4.2"),
    Case("ov001", "around 0", concat_pair("uint8 z = {0}"), "", "openvino:2026.4.1"),
    Case(
        "ov002", "dynamic",
        graph(_PAIR, "float s = {0.1}, int8 z = {0}", "float[N,4,8,8] x) => (float[n,c,h,w] y)"), "warning", "openvino",
    ),
    Case("ov002", "fixed", pair("int8 z = {0}"), "", "openvino"),
    Case("ov002", "float", graph("y = Relu(x)", "", "float[N,4,8,8] x) => (float[n,c,h,w] y)"), "", "openvino"),
    Case("dla001", "dynamic", graph("y = Relu(x)", "", "float[N,4,8,8] x) => (float[n,c,h,w] y)"), "error", "dla"),
    Case("dla001", "fixed", graph("y = Relu(x)"), "", "dla"),
    Case("dla002", "wide", graph("y = Relu(x)", "", f"{_WIDE} x) => (float[n,c,h,w] y)"), "error", "dla"),
    Case("dla002", "large batch", graph("y = Relu(x)", "", f"{_MANY} x) => (float[n,c,h,w] y)"), "error", "dla"),
    Case("dla002", "at the limits", graph("y = Relu(x)", "", f"{_MOST} x) => (float[n,c,h,w] y)"), "", "dla"),
    Case("dla003", "along rows", graph("y = Concat<axis = 2>(x, x)"), "warning", "dla"),
    Case("dla003", "along channels from behind", graph("y = Concat<axis = -3>(x, x)"), "", "dla"),
)  # fmt: skip
