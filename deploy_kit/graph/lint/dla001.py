"""The DLA has no dynamic dimensions: it runs the shapes that it was built for."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import DLA, LintFault, LintTarget, Rule


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find inputs with an axis that is not fixed."""
    for value in onnx_file.inputs(model):
        free = [str(side) for side in value.shape or () if not isinstance(side, int)]
        if free:
            yield LintFault(node="", text=f"input '{value.name}' has the dynamic axis {', '.join(free)}")


RULE = Rule(
    targets=(DLA,),
    level="error",
    title="a dynamic axis",
    cure="export with a fixed batch: leave --dynamic out, give --batch N",
    source="TensorRT documentation, DLA Supported Layers and Restrictions: General Restrictions; not tried here",
    check=check,
)
