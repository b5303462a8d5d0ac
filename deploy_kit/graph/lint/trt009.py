"""A scale of 0, or below: TensorRT's parser takes positive ones. A channel that is always 0 leaves such a scale."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of
from deploy_kit.graph.lint._quantized import constant, pairs


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find every constant scale that is not positive where it is first used: Q and DQ share theirs."""
    seen: set[ir.Value | None] = set()
    for node in pairs(model):
        scale = constant(node.inputs[1])
        if scale is None or node.inputs[1] in seen:
            continue
        seen.add(node.inputs[1])
        if not bool((scale.astype(np.float64) > 0).all()):
            yield LintFault(node=name_of(node), text=f"{node.op_type} with a scale of {float(scale.min()):g}")


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="a scale that is not positive",
    cure="quantize again with other images, or leave that node in float",
    source="measured: TensorRT-RTX 1.7.1.116's parser refuses 0 and negative scales",
    check=check,
)
