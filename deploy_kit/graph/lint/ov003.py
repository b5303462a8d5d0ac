"""OpenVINO computes a convolution wrongly that reads a concatenation on a grid of int8; on uint8 it is right."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.base.versions import is_older
from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import stored

_TRIED = "2026.4.1"
_BETWEEN = frozenset({*onnx_file.PAIR, "MaxPool", "AveragePool", "Relu"})


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find such convolutions, but for depthwise ones; a version newer than the one tried is only warned of."""
    newer = is_older(_TRIED, target.version)
    for node in model.graph:
        if node.op_type not in ("Conv", "QLinearConv") or node.attributes.get_int("group", 1) > 1:
            continue
        if _signed_concat(node.inputs[0]):
            yield LintFault(
                node=name_of(node),
                text=f"it reads a concatenation in int8, and OpenVINO {_TRIED} computes another result",
                level="warning" if newer else None,
                cure="quantize it again as Q/DQ pairs" if node.op_type == "QLinearConv" else None,
            )


def _signed_concat(value: ir.Value | None) -> bool:
    """Return whether a value is a concatenation that a grid of int8 was laid on, as a whole or in its parts."""
    node, signed = _maker(value), False
    while node is not None and node.op_type in _BETWEEN:
        signed |= _signed(node)
        node = _maker(node.inputs[0])
    if node is None or node.op_type != "Concat":
        return False
    parts = [maker for part in node.inputs if (maker := _maker(part)) is not None]
    return signed or any(_signed(maker) for maker in parts)


def _maker(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None


def _signed(node: ir.Node) -> bool:
    return node.op_type in onnx_file.PAIR and stored(node) == ir.DataType.INT8


RULE = Rule(
    targets=("openvino",),
    level="error",
    title="a convolution that reads a concatenation on a grid of int8",
    cure="deploykit build --engine openvino stores the same grid as uint8; for a file of its own quantize with "
    "--layout portable",
    source="measured: OpenVINO 2026.4.1, 0.8 to 18 dB against ONNX's reference; the same grid as uint8 is exact",
    check=check,
)
