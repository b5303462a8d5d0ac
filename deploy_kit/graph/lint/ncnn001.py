"""ncnn runs float graphs of one image, as pnnx converts them; others are refused before pnnx spends time on them."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import LintFault, LintTarget, Rule
from deploy_kit.graph.widen import HALF


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Look at the types of the graph, at its input and at the batch."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        yield LintFault(
            node="", text="the graph carries INT8: pnnx does not convert it, and ncnn gains little by its own"
        )
    weights = {
        value.dtype for value in model.graph.initializers.values() if value.shape is not None and len(value.shape) > 1
    }
    if weights & {*HALF} and ir.DataType.FLOAT in weights:
        yield LintFault(
            node="",
            text="some weights are float32 and some in half precision, and pnnx stores all in one type",
            cure="convert without --calibration, so that no layer stays in float32",
        )
    for value in model.graph.inputs:
        if value.dtype is not None and value.dtype not in (ir.DataType.FLOAT, *HALF):
            yield LintFault(
                node="",
                text=f"its input '{value.name}' holds {value.dtype.name}, ncnn takes float32 alone",
                cure="export without --input-pixels",
            )
        if value.shape is not None and len(value.shape) and value.shape[0] != 1:
            yield LintFault(
                node="",
                text=f"its input '{value.name}' has batch {value.shape[0]}, ncnn computes one image at a time",
                cure="export with --batch 1",
            )


RULE = Rule(
    targets=("ncnn",),
    level="error",
    title="anything but a float graph of one image, with weights of one type",
    cure="build the float32 graph: --variant fp32",
    source="measured: pnnx 20261020, ncnn 1.0.20261020",
    check=check,
)
