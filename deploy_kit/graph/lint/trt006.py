"""TensorRT documents signed 8-bit integers only; uint8 around 0 is built by some parsers and refused by others."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import stored


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find QuantizeLinear to uint8."""
    for node in model.graph:
        if node.op_type == "QuantizeLinear" and stored(node) == ir.DataType.UINT8:
            yield LintFault(node=name_of(node), text="QuantizeLinear to uint8, and TensorRT documents int8")


RULE = Rule(
    targets=TENSORRT,
    level="warning",
    title="activations quantized to uint8",
    cure="quantize to int8: deploykit quantize --int8 --target tensorrt",
    source="TensorRT documentation, Working with Quantized Types; measured: TensorRT-RTX 1.7.1.116 builds it around 0",
    check=check,
)
