"""ONNX Runtime's optimizer loses large half-precision biases of convolutions between Q/DQ pairs."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.lint import LintFault, LintTarget, Rule, name_of

_INFINITE = 65520  # rounds to infinity in float16


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find convolutions and Gemms whose quotient b / (s_x · s_w) float16 cannot hold."""
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3 or not _quantized_behind(node):
            continue
        of_input, of_weight, bias = _scale(node.inputs[0]), _scale(node.inputs[1]), edit.numbers(node.inputs[2])
        if bias is None or bias.dtype != np.float16 or of_input is None or of_input.size != 1 or of_weight is None:
            continue
        quotient = float((np.abs(bias.astype(np.float64)) / (of_input * of_weight)).max())
        if quotient >= _INFINITE:
            yield LintFault(
                node=name_of(node),
                text=f"a float16 bias of {quotient:.3g} steps of its input and weight, and float16 ends at 65504",
            )


def _scale(value: ir.Value | None) -> np.ndarray | None:
    """Return the scale of the DequantizeLinear that makes a value."""
    node = value.producer() if value is not None else None
    scale = edit.numbers(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    return None if scale is None else scale.astype(np.float64)


def _quantized_behind(node: ir.Node) -> bool:
    """Return whether a QuantizeLinear reads the result, or the result of its ReLU."""
    readers = node.outputs[0].consumers()
    behind = [reader for relu in readers if relu.op_type in ("Relu", "Clip") for reader in relu.outputs[0].consumers()]
    return any(reader.op_type == "QuantizeLinear" for reader in (*readers, *behind))


RULE = Rule(
    targets=("onnxruntime",),
    level="error",
    title="large half-precision bias between Q/DQ pairs: the optimizer makes it infinite",
    cure="quantize with the option rest: fp32, or for onnxruntime: deploykit quantize --int8",
    source="measured: onnxruntime 1.31.1, pass WeightBiasQuantization (docs/placements.md)",
    check=check,
)
