"""TensorRT quantizes symmetrically: a zero point other than 0 is refused."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import pairs, shifted


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find every zero point that is not 0, or not constant, where it is first used: Q and DQ share theirs."""
    seen: set[ir.Value | None] = set()
    for node in pairs(model):
        if shifted(node) and node.inputs[2] not in seen:
            seen.add(node.inputs[2])
            yield LintFault(node=name_of(node), text=f"{node.op_type} with a zero point other than 0")


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="a zero point other than 0",
    cure="quantize symmetrically: deploykit quantize --int8 --target tensorrt",
    source="measured: TensorRT-RTX 1.7.1.116's parser refuses it; TensorRT documentation, Working with Quantized Types",
    check=check,
)
