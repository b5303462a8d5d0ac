"""Store an int32 bias behind a DequantizeLinear as the float32 numbers that it stands for: TensorRT takes no other.

s · (q − z), rounded to float32 as the DequantizeLinear does
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, integer_grids
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Compute every DequantizeLinear of constant int32, one scale for all numbers or one for each."""
    fired = 0
    for node in tuple(model.graph):
        if node.op_type != "DequantizeLinear" or not all(map(edit.constant, node.inputs[:2])):
            continue
        stored, scale = (ir.convenience.get_const_tensor(value) for value in node.inputs[:2] if value is not None)
        assert stored is not None and scale is not None
        if stored.dtype != ir.DataType.INT32 or scale.dtype != ir.DataType.FLOAT or len(stored.shape) > 1:
            continue
        zero = integer_grids.zero_point(node)
        integers = stored.numpy() - (0 if zero is None else zero)
        result = node.outputs[0]
        made = edit.initializer(
            model, f"{result.name}.float", integers.astype(np.float32) * scale.numpy(), ir.DataType.FLOAT
        )
        result.replace_all_uses_with(made)
        model.graph.remove(node, safe=True)
        fired += 1
    return Outcome(fired=fired)


PASS = Pass(apply=apply, promise=0.0)
