"""Half precision ends at 65504: an activation beyond becomes infinite.

Judged by the ranges that a file records (`onnx_file.RANGES_KEY`); a file that records none is not judged.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of

_LARGEST = float(np.finfo(np.float16).max)
_HEADROOM = 2.0  # the one that `schemes._half` keeps: further images reach further


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Hold recorded ranges against the range of float16, for every activation of that type."""
    halves = [(node, v) for node in model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT16]
    reach = onnx_file.ranges(model)
    if halves and not reach:
        yield LintFault(
            node="",
            text="ranges unknown: nothing says that no activation passes the end of float16",
            level="note",
            cure="record them: deploykit quantize --fp16 --calibration FOLDER",
        )
    for node, value in halves:
        top = reach.get(str(value.name), 0.0)
        if top * _HEADROOM > _LARGEST:
            over = top > _LARGEST
            yield LintFault(
                node=name_of(node),
                text=f"an activation of float16 reaches {top:g}, and float16 ends at {_LARGEST:g}",
                level=None if over else "warning",
            )


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="float16 activations beyond 65504, by recorded ranges",
    cure="quantize with --fp16 and --calibration, which keeps such nodes in float32, or with --bf16",
    source="IEEE 754 binary16: the largest finite number is 65504",
    check=check,
)
