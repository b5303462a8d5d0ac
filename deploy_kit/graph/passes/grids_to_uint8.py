"""Store activations of int8 as uint8: the same grid, other integers (`graph.integer_grids`).

ONNX Runtime 1.31.1 fuses a maximum of integers with what is around it in uint8 alone; OpenVINO 2026.4.1 computes a
convolution wrongly that reads a concatenation quantized to int8 (lint rule OV003).
"""

import onnx_ir as ir

from deploy_kit.graph import integer_grids
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Shift every grid of int8."""
    fired, refused = integer_grids.shift(model, ir.DataType.UINT8)
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


PASS = Pass(apply=apply, promise=0.0)
