"""A concatenation that Q/DQ pairs do not fuse around: its parts are copied as floats or brought to another grid."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.lint import EVERYWHERE, LintFault, LintTarget, Rule, name_of

_BETWEEN = frozenset({"Relu", "MaxPool", "Reshape", "Flatten", "Transpose", "Identity"})


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find concatenations of dequantized maps that engines cannot compute by copying integers."""
    for node in model.graph:
        if node.op_type != "Concat":
            continue
        makers = [part.producer() if part is not None else None for part in node.inputs]
        restored = [maker for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
        if not restored:
            continue
        grids = {_grid(maker) for maker in restored}
        behind = _grids_behind(node.outputs[0])
        if len(restored) < len(makers):
            text = "some of its parts are quantized, and others are not: it copies floats"
        elif not behind:
            text = "its parts are quantized and nothing quantizes it: it copies floats"
        elif len(grids | behind) > 1:
            text = "its parts and what is behind it are on several grids: they are quantized once more"
        else:
            continue
        yield LintFault(node=name_of(node), text=text)


def _grids_behind(value: ir.Value) -> frozenset[object]:
    """Collect the grids that every reader of a value lays on it; empty if one of them reads floats."""
    found: set[object] = set()
    for use, _ in value.uses():
        if use.op_type == "QuantizeLinear":
            found.add(_grid(use))
        elif use.op_type in _BETWEEN and (further := _grids_behind(use.outputs[0])):
            found |= further
        else:
            return frozenset()
    return frozenset() if value.is_graph_output() else frozenset(found)


def _grid(node: ir.Node) -> object:
    """Return the numbers of scale and zero point; the values' names where they are computed."""
    parts = []
    for value in node.inputs[1:3]:
        numbers = edit.numbers(value)
        parts.append(numbers.tobytes() if numbers is not None else value.name if value is not None else None)
    return tuple(parts)


RULE = Rule(
    targets=EVERYWHERE,
    level="warning",
    title="a concatenation whose Q/DQ pairs do not fuse: parts in float, or on several grids",
    cure="give the float32 graph to deploykit quantize --int8, which lays one grid on all parts of a concatenation",
    source="measured: in quantize_static's DenseNet-121 (default options) 58 concatenations on several grids take 15 % "
    "of the time of ONNX Runtime 1.31.1, and the Transposes around them 19 %",
    check=check,
)
