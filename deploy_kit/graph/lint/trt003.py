"""A Reshape to a fixed batch in a graph with a dynamic one: right for that batch alone."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file
from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find Reshapes of a dynamic batch whose target begins with a number other than 0 and -1."""
    batches = {str(value.shape[0]) for value in onnx_file.inputs(model) if value.shape and _dynamic(value.shape)}
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[0] is None:
            continue
        shape, sides = node.inputs[0].shape, edit.numbers(node.inputs[1])
        if not shape or not _dynamic(shape) or str(shape[0]) not in batches or sides is None or not sides.size:
            continue
        batch = int(sides.flat[0])
        if batch > 0:
            yield LintFault(node=name_of(node), text=f"Reshape to a batch of {batch}, and the input's batch is dynamic")


def _dynamic(shape: ir.Shape) -> bool:
    return not isinstance(shape[0], int)


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="a Reshape to a fixed batch under a dynamic one",
    cure="export with a fixed batch (--batch N), or reshape to 0 or -1 in front",
    source="measured: TensorRT-RTX 1.7.1.116 refuses a fixed shape; with a -1 behind, the batch becomes part of a row",
    check=check,
)
