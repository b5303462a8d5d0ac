"""Store activations of uint8 around 128 as int8 around 0, which TensorRT takes: the same grid (`graph.integer_grids`).

A grid around another number has no such form: TensorRT takes a zero point of 0 alone (lint rule TRT001).
"""

import onnx_ir as ir

from deploy_kit.graph import integer_grids
from deploy_kit.graph.passes import Outcome, Pass

_MIDDLE = 128


def apply(model: ir.Model) -> Outcome:
    """Shift the grids whose zero point is the middle of uint8."""
    fired, refused = integer_grids.shift(model, ir.DataType.INT8, lambda zero: bool((zero == _MIDDLE).all()))
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


PASS = Pass(apply=apply, promise=0.0)
