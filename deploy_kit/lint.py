"""What is known to go wrong with a graph on a target, found before the target sees it. Each rule has a code and a cure.

OV001   Concat → QuantizeLinear (zero point ≠ 0) → DequantizeLinear → BatchNormalization: OpenVINO 2026.4.1 ends in a
        segmentation fault (its low-precision pass MoveFakeQuantize dereferences a null pointer)
ORT001  Max or Min of integers: ONNX Runtime has it from 1.24 on
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

_INTEGERS = frozenset({ir.DataType.UINT8, ir.DataType.INT8})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One finding.

    Attributes:
        code: Of the rule.
        node: Where.
        text: What is wrong.
        cure: What to do.
    """

    code: str
    node: str
    text: str
    cure: str


def quantized_norms(model: ir.Model) -> tuple[Fault, ...]:
    """Apply OV001."""
    found = (node for node in model.graph if node.op_type == "BatchNormalization" and _behind_concat(node))
    return tuple(
        Fault(
            code="OV001",
            node=node.name or str(node.outputs[0].name),
            text="a concatenation is quantized with a zero point before a BatchNormalization, "
            "which ends OpenVINO 2026.4.1 in a segmentation fault",
            cure="quantize with --layout portable",
        )
        for node in found
    )


def integer_maxima(model: ir.Model) -> tuple[Fault, ...]:
    """Apply ORT001."""
    found = (n for n in model.graph if n.op_type in ("Max", "Min") and _constant_type(n) in _INTEGERS)
    return tuple(
        Fault(
            code="ORT001",
            node=node.name or str(node.outputs[0].name),
            text=f"{node.op_type} of integers, which ONNX Runtime has from 1.24 on",
            cure="quantize with --form depthwise",
        )
        for node in found
    )


def needs(model: ir.Model) -> tuple[tuple[str, str], ...]:
    """List what a graph asks of a runtime beyond its operator set: (distribution and version, why)."""
    return (("onnxruntime>=1.24", "maximum of integers"),) if integer_maxima(model) else ()


def _constant_type(node: ir.Node) -> ir.DataType | None:
    return next((value.dtype for value in node.inputs if value is not None and value.const_value is not None), None)


def _behind_concat(norm: ir.Node) -> bool:
    chain = list(_producers(norm))
    return [node.op_type for node in chain[:3]] == ["DequantizeLinear", "QuantizeLinear", "Concat"] and _shifted(
        chain[1]
    )


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    """Walk up along the first inputs."""
    source = node.inputs[0]
    while source is not None and (producer := source.producer()) is not None:
        yield producer
        source = producer.inputs[0] if producer.inputs else None


def _shifted(quantize: ir.Node) -> bool:
    """Whether a QuantizeLinear has a zero point that is not 0, or one that is not known."""
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    if zero is None:
        return False
    return zero.const_value is None or bool(zero.const_value.numpy().any())
