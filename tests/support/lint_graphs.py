"""Minimal graphs in ONNX's own text form, for the cases of lint rules."""

from dataclasses import dataclass

import onnx

_HEAD = "float[1,4,8,8] x) => (float[n,c,h,w] y)"
OPEN_BATCH = "float[N,4,8,8] x) => (float[n,c,h,w] y)"
PAIR = "q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)  y = Relu(a)"


@dataclass(frozen=True)
class Case:
    """A graph for one rule.

    Attributes:
        name: What is special about it.
        text: The graph.
        level: The level that the rule must find; empty if it must find nothing.
        target: What it is judged for.
        opset: Operator set.
        ir: IR version.
        metadata: Recorded ranges.
        words: Part of the message that the rule must write.
        tried: Whether TensorRT-RTX's own verdict is held against the rule's, where it is the target.
        rule: The rule: the name of the file that holds the case.
    """

    name: str
    text: str
    level: str = ""
    target: str = "tensorrt_rtx"
    opset: int = 17
    ir: int = 8
    metadata: str = ""
    words: str = ""
    tried: bool = True
    rule: str = ""

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
    return graph(PAIR, f"{scale}, {zero}")


def norm(gamma: str, constants: str, nodes: str = "", mode: int = 0) -> str:
    """Write a BatchNormalization whose first parameter is `gamma`."""
    rest = "float[4] b = {0,0,0,0}, float[4] m = {0,0,0,0}, float[4] v = {1,1,1,1}"
    body = f"{nodes} y = BatchNormalization<training_mode = {mode}>(x, {gamma}, b, m, v)"
    return graph(body, f"{constants}, {rest}")


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
