"""TensorRT takes uint8 inputs, and nothing but a Cast may read them."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find the nodes that read a uint8 input and are no Cast."""
    for value in onnx_file.inputs(model):
        for node in value.consumers() if value.dtype == ir.DataType.UINT8 else ():
            if node.op_type != "Cast":
                yield LintFault(node=name_of(node), text=f"{node.op_type} reads the uint8 input '{value.name}'")


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="pixels that are moved before they are floats",
    cure="let them be cast first: deploykit quantize --fp16 --target tensorrt (or --fp32, --bf16, --int8)",
    source="measured: TensorRT-RTX 1.7.1.116's parser refuses Transpose and Gather of uint8, and takes Cast",
    check=check,
)
