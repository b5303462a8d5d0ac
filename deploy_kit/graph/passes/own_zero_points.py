"""Give each stored int8 weight a zero point of its own, bit for bit the same.

On x64 without VNNI, ONNX Runtime turns int8 weights into uint8 so that sums do not saturate, and writes weight and zero
point under names made of the old ones; it refuses to load a graph where two weights share one of them (1.31.1).
"""

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Copy what a DequantizeLinear of a stored int8 weight shares with other nodes."""
    fired = 0
    for node in model.graph:
        weight = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if weight is None or weight.const_value is None or weight.const_value.dtype != ir.DataType.INT8:
            continue
        for place in (0, 2):
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and value.const_value is not None and len(value.uses()) > 1:
                own = edit.initializer(model, f"{value.name}.own", value.const_value.numpy(), ir.DataType.INT8)
                node.replace_input_with(place, own)
                fired += 1
    return Outcome(fired=fired)


PASS = Pass(apply=apply, promise=0.0)
