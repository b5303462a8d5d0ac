"""TensorRT's parser is documented for operator sets up to a limit; newer files may be read and are not promised."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import DLA, LintFault, LintTarget, Rule
from deploy_kit.recipe import compatibility


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Compare the operator set with what the target's version documents."""
    row = compatibility.onnx_limit("tensorrt", target.version)
    if row is not None and onnx_file.opset(model) > row.opset:
        yield LintFault(
            node="",
            text=f"operator set {onnx_file.opset(model)}; TensorRT {target.version} is documented up to {row.opset}",
            cure=f"export again with --opset {row.opset}",
        )


RULE = Rule(
    targets=("tensorrt", DLA),
    level="warning",
    title="operator set newer than TensorRT documents",
    cure="export again with an older --opset",
    source="compatibility.yaml; measured: TensorRT-RTX 1.7.1.116 builds a convolution of every set up to 27",
    check=check,
)
