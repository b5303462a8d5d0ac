"""The DLA's tensors are limited: a batch of 4096, 8192 along every other axis."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import DLA, LintFault, LintTarget, Rule, name_of

_BATCH, _SIDE = 4096, 8192


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find activations that are larger."""
    places = [("", value) for value in onnx_file.inputs(model)]
    places += [(name_of(node), value) for node in model.graph for value in node.outputs]
    for node, value in places:
        sides = [side if isinstance(side, int) else 1 for side in value.shape or ()]
        if sides and (sides[0] > _BATCH or max(sides[1:], default=1) > _SIDE):
            yield LintFault(node=node, text=f"'{value.name}' is {'×'.join(map(str, sides))}")


RULE = Rule(
    targets=(DLA,),
    level="error",
    title="a batch above 4096, or an axis above 8192",
    cure="export with a smaller batch or input",
    source="TensorRT documentation, DLA Supported Layers and Restrictions: General Restrictions; not tried here",
    check=check,
)
