"""INT8 with a dynamic input crashes OpenVINO on processors with AMX, at the first inference."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import LintFault, LintTarget, Rule


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find a quantized graph with an axis that is not fixed."""
    if onnx_file.precision(model) != "int8":
        return
    for value in onnx_file.inputs(model):
        if any(not isinstance(side, int) for side in value.shape or ()):
            yield LintFault(
                node="",
                text=f"int8 with the dynamic input '{value.name}', which ends OpenVINO 2026.1 to 2026.3 on AMX",
            )


RULE = Rule(
    targets=("openvino",),
    level="warning",
    title="int8 with a dynamic input, on processors with AMX",
    cure="export with a fixed batch: leave --dynamic out, give --batch N",
    source="github.com/openvinotoolkit/openvino/issues/37577 (2026.1 to 2026.3); not tried here",
    check=check,
)
