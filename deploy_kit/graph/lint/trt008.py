"""TensorRT takes no maximum or minimum of 8-bit integers: the layout of other runtimes."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint.ort001 import extrema


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find integer extrema."""
    for node in extrema(model):
        yield LintFault(node=name_of(node), text=f"{node.op_type} of 8-bit integers")


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="maximum or minimum of 8-bit integers",
    cure="quantize for it: deploykit quantize --int8 --target tensorrt",
    source="measured: TensorRT-RTX 1.7.1.116 refuses uint8 in its parser and int8 in its builder",
    check=check,
)
