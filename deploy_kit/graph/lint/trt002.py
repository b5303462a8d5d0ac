"""TensorRT dequantizes 8-bit integers: a bias stored in int32 is refused; BatchNormalization parameters are not."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import stored


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find DequantizeLinear of int32, and of 8-bit BatchNormalization parameters."""
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and stored(node) == ir.DataType.INT32:
            yield LintFault(node=name_of(node), text="DequantizeLinear of int32: a quantized bias")
        elif node.op_type == "BatchNormalization" and any(map(_dequantized, node.inputs[1:])):
            yield LintFault(
                node=name_of(node),
                text="quantized BatchNormalization parameters lose accuracy and save nothing; "
                "TensorRT-RTX 1.7.1.116 builds them",
                level="warning",
            )


def _dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return (
        producer is not None
        and producer.op_type == "DequantizeLinear"
        and stored(producer) in (ir.DataType.INT8, ir.DataType.UINT8)
    )


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="a bias in int32; BatchNormalization parameters in int8 (warning)",
    cure="leave biases and BatchNormalization in float: deploykit quantize --int8 --target tensorrt",
    source="measured: TensorRT-RTX 1.7.1.116 refuses int32 in its parser, and builds BatchNormalization parameters",
    check=check,
)
