"""A half-precision graph in float32, its numbers unchanged: for converters that read float32 alone."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def half_of(model: ir.Model) -> ir.DataType | None:
    """Return the half type that a graph's weights have; None where it has none."""
    return next((value.dtype for value in model.graph.initializers.values() if value.dtype in HALF), None)


def widen(model: ir.Model) -> None:
    """Turn constants and activations of half precision into float32, in place; Casts between the two go."""
    for name, value in model.graph.initializers.items():
        if value.dtype in HALF and value.const_value is not None:
            value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float32), name=name)
            value.dtype = ir.DataType.FLOAT
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) in (ir.DataType.FLOAT, *HALF):
            source = node.inputs[0]
            if source is not None and source.dtype in (ir.DataType.FLOAT, *HALF):
                node.op_type = "Identity"
                del node.attributes["to"]
            else:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for result in node.outputs:
            if result.dtype in HALF:
                result.dtype = ir.DataType.FLOAT
    common.IdentityEliminationPass()(model)
