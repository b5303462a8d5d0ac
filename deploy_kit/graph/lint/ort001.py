"""ONNX Runtime has the maximum and minimum of 8-bit integers from one version on."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.base.versions import INTEGER_MAXIMUM, lacks_integer_maximum, version_numbers
from deploy_kit.graph.lint import LintFault, LintTarget, Rule, name_of

_INTEGERS = frozenset({ir.DataType.UINT8, ir.DataType.INT8})


def extrema(model: ir.Model) -> tuple[ir.Node, ...]:
    """List the nodes that take a maximum or minimum of 8-bit integers."""
    return tuple(
        node
        for node in model.graph
        if node.op_type in ("Max", "Min") and any(v is not None and v.dtype in _INTEGERS for v in node.inputs)
    )


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find integer extrema where the version lacks them; where it is not known, a warning names what they need."""
    if version_numbers(target.version) and not lacks_integer_maximum(target.version):
        return
    known = f", here is {target.version}" if target.version else ""
    for node in extrema(model):
        yield LintFault(
            node=name_of(node),
            text=f"{node.op_type} of integers needs onnxruntime {INTEGER_MAXIMUM}{known}",
            level=None if known else "warning",
        )


def needs(model: ir.Model) -> tuple[tuple[str, str], ...]:
    """Return the version of ONNX Runtime that computes integer extrema, where there are any."""
    return ((f"onnxruntime>={INTEGER_MAXIMUM}", "maximum of integers"),) if extrema(model) else ()


RULE = Rule(
    targets=("onnxruntime",),
    level="error",
    title="maximum or minimum of 8-bit integers",
    cure="update onnxruntime, or quantize with --form depthwise",
    source="measured: onnxruntime 1.23.2 refuses it, 1.24.1 computes it",
    check=check,
    needs=needs,
)
