"""A scale of 0 for weights: TensorRT's parser takes positive ones. A channel that is always 0 leaves such a scale."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import pairs


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find every scale of 0 that only restores; one that also divides is wrong on any engine (ONNX003)."""
    for node in pairs(model):
        scale = edit.numbers(node.inputs[1]) if node.op_type == "DequantizeLinear" else None
        divides = any(use.op_type == "QuantizeLinear" for use, _ in node.inputs[1].uses()) if node.inputs[1] else False
        if scale is not None and not divides and bool((scale == 0).any()):
            yield LintFault(node=name_of(node), text="DequantizeLinear with a scale of 0")


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="a scale of 0 for weights",
    cure="quantize again with other images, or leave that node in float",
    source="measured: TensorRT-RTX 1.7.1.116's parser refuses scales that are not positive",
    check=check,
)
