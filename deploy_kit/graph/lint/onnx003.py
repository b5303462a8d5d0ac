"""A step of a grid that is no positive number: what is quantized or restored with it is no number either."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import edit, integer_grids
from deploy_kit.graph.lint import EVERYWHERE, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import pairs


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find NaN, infinite and negative scales, and 0 where something is divided by it, where they are first used."""
    seen: set[ir.Value | None] = set()
    for node in pairs(model):
        scale = edit.numbers(node.inputs[1])
        if scale is None or node.inputs[1] in seen:
            continue
        seen.add(node.inputs[1])
        wrong = integer_grids.faulty_steps(scale, divides=node.op_type == "QuantizeLinear")
        if len(wrong):
            places = f" in {len(wrong)} of {scale.size} places" if scale.size > 1 else ""
            yield LintFault(node=name_of(node), text=f"{node.op_type} with a scale of {wrong[0]:g}{places}")


RULE = Rule(
    targets=EVERYWHERE,
    level="error",
    title="a scale of a Q/DQ pair that is NaN, infinite, negative, or 0 where it divides",
    cure="quantize the float32 file again: an activation that never varies in calibration leaves such a scale",
    source="ONNX, QuantizeLinear-10: y = saturate(round(x / scale) + zero point); measured: TensorRT-RTX 1.7.1.116's "
    "parser refuses 0 and negative scales",
    check=check,
)
