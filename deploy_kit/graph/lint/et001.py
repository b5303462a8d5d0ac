"""ExecuTorch takes graphs of a fixed batch and float input, of operators that torch is told to compute."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.base.lazy import install_line, present
from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import LintFault, LintTarget, Rule
from deploy_kit.graph.widen import HALF


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Look at types, input, batch and operators of the graph."""
    if any(value.dtype in HALF for value in model.graph.initializers.values()):
        yield LintFault(node="", text="the graph carries half precision, which is not lowered to XNNPACK")
    for value in model.graph.inputs:
        if value.dtype is not None and value.dtype not in (ir.DataType.FLOAT, *HALF):
            yield LintFault(
                node="",
                text=f"its input '{value.name}' holds {value.dtype.name}, a program takes float32 alone",
                cure="export without --input-pixels",
            )
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            yield LintFault(
                node="",
                text=f"its input '{value.name}' has an open batch, a program is lowered for one size",
                cure="export with --batch 1",
            )
    if not present("torch"):
        yield LintFault(
            node="", level="note", text="its operators are not judged without torch", cure=install_line("torch")
        )
        return
    from deploy_kit.graph import torch_graph  # takes seconds, and only this target needs it

    for operator in set(torch_graph.unknown_operators(model)) - set(onnx_file.PAIR):
        yield LintFault(
            node="",
            text=f"the graph has the operator {operator}, which torch is not told how to compute",
            cure="simplify the graph first: deploykit simplify",
        )


RULE = Rule(
    targets=("executorch",),
    level="error",
    title="what is not lowered to XNNPACK: half precision, pixels, an open batch, operators beyond a classifier's",
    cure="build the float32 or the INT8 graph: --variant fp32",
    source="measured: executorch 1.5.1, torch 2.13.0",
    check=check,
)
