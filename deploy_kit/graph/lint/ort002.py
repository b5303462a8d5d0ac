"""ONNX Runtime refuses a file whose operator set or IR version is newer than it is."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import LintFault, LintTarget, Rule
from deploy_kit.recipe import compatibility


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Compare both versions with what the runtime's version reads; one older than every row is not judged."""
    row = compatibility.onnx_limit("onnxruntime", target.version)
    if row is None:
        return
    if onnx_file.opset(model) > row.opset:
        yield LintFault(
            node="",
            text=f"operator set {onnx_file.opset(model)}; onnxruntime {target.version} reads up to {row.opset}",
            cure=f"export again with --opset {row.opset}, or update onnxruntime",
        )
    if row.ir is not None and model.ir_version > row.ir:
        yield LintFault(
            node="", text=f"IR version {model.ir_version}; onnxruntime {target.version} reads up to {row.ir}"
        )


RULE = Rule(
    targets=("onnxruntime",),
    level="error",
    title="operator set or IR version newer than onnxruntime reads",
    cure="export again for the older runtime, or update onnxruntime",
    source="measured: onnxruntime 1.20.1, 1.22.1, 1.23.2, 1.24.1 and 1.31.1 (compatibility.yaml)",
    check=check,
)
