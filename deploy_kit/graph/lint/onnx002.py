"""A graph exported in training mode draws random numbers, or normalizes by its own batch."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.lint import EVERYWHERE, LintFault, LintTarget, Rule, name_of


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find Dropout and BatchNormalization that still train."""
    for node in model.graph:
        if _trains(node):
            yield LintFault(node=name_of(node), text=f"{node.op_type} in training mode")


def _trains(node: ir.Node) -> bool:
    if node.op_type == "BatchNormalization":
        return edit.trains(node)
    if node.op_type != "Dropout" or len(node.inputs) < 3:
        return False
    mode = edit.numbers(node.inputs[2])
    return mode is not None and bool(mode)


RULE = Rule(
    targets=EVERYWHERE,
    level="error",
    title="Dropout or BatchNormalization in training mode",
    cure="export again after model.eval()",
    source="ONNX, Dropout-13 and BatchNormalization-15; measured: TensorRT-RTX 1.7.1.116's parser refuses both",
    check=check,
)
