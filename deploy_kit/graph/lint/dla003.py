"""The DLA concatenates along channels only; anything else goes to the GPU, and the network falls into pieces."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import DLA, LintFault, LintTarget, Rule, name_of


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find Concats along another axis of (N, C, H, W)."""
    for node in model.graph:
        if node.op_type != "Concat":
            continue
        axis = node.attributes.get_int("axis", 1)
        rank = len(node.outputs[0].shape) if node.outputs[0].shape is not None else 0
        if (axis + rank if axis < 0 else axis) != 1:
            yield LintFault(
                node=name_of(node), text=f"Concat along axis {axis}, and the DLA does it along channels only"
            )


RULE = Rule(
    targets=(DLA,),
    level="warning",
    title="a concatenation along another axis than channels",
    cure="let it fall back to the GPU, or run the whole network there",
    source="TensorRT operator documentation, Concatenation: DLA Support; not tried here",
    check=check,
)
