"""Concat → QuantizeLinear (zero point ≠ 0) → DequantizeLinear → BatchNormalization ends OpenVINO in a segfault.

Its low-precision pass MoveFakeQuantize moves the pair before the Concat and dereferences a null pointer.
"""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.base.versions import is_older
from deploy_kit.graph.lint import LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import shifted

_TRIED = "2026.4.1"


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find the BatchNormalizations at the end of the chain; a version newer than the one tried is only warned of."""
    newer = is_older(_TRIED, target.version)
    for node in model.graph:
        if node.op_type == "BatchNormalization" and _behind_concat(node):
            yield LintFault(
                node=name_of(node),
                text="a concatenation is quantized with a zero point before a BatchNormalization, "
                f"which ends OpenVINO {_TRIED} in a segmentation fault",
                level="warning" if newer else None,
            )


def _behind_concat(norm: ir.Node) -> bool:
    chain: list[ir.Node] = []
    source = norm.inputs[0]
    while len(chain) < 3 and source is not None and (producer := source.producer()) is not None:
        chain.append(producer)
        source = producer.inputs[0] if producer.inputs else None
    return [node.op_type for node in chain] == ["DequantizeLinear", "QuantizeLinear", "Concat"] and shifted(chain[1])


RULE = Rule(
    targets=("openvino",),
    level="error",
    title="a concatenation quantized with a zero point before a BatchNormalization",
    cure="quantize the float32 graph with --layout portable",
    source="measured: OpenVINO 2026.4.1 dies with SIGSEGV on it",
    check=check,
)
