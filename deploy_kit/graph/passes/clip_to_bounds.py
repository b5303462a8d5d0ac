"""A Clip as a ReLU or a maximum, and a minimum: min(max(x, low), high).

On integers of a grid that ends at the bounds neither computes anything, and the ReLU is part of the convolution before.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Replace every Clip of floats with constant bounds."""
    fired = 0
    for node in tuple(model.graph):
        if node.op_type != "Clip" or not all(edit.constant(value) for value in node.inputs[1:] if value is not None):
            continue
        source, old = node.inputs[0], node.outputs[0]
        dtype = source.dtype if source is not None else None
        if source is None or dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
            continue
        low, high = (
            float(edit.array(node.inputs[at]).reshape(-1)[0])
            if len(node.inputs) > at and node.inputs[at] is not None
            else end
            for at, end in ((1, -np.inf), (2, np.inf))
        )
        if low > high or not (np.isfinite(low) or np.isfinite(high)):
            continue
        steps = [("Relu" if low == 0 else "Max", low)] * bool(np.isfinite(low)) + [("Min", high)] * bool(
            np.isfinite(high)
        )
        made = None
        for at, (operator, limit) in enumerate(steps):
            inputs = [source]
            if operator != "Relu":
                inputs.append(edit.initializer(model, f"{old.name}.{operator.lower()}", np.array(limit), dtype))
            made = ir.node(operator, inputs, name=node.name if at == len(steps) - 1 else None)
            if at < len(steps) - 1:
                source = made.outputs[0]
                source.name, source.type = edit.free_name(model, f"{old.name}.from_below"), old.type
                source.shape = old.shape
                model.graph.insert_before(node, made)
        assert made is not None
        edit.put_in_place(model, node, old, made)
        fired += 1
    return Outcome(fired=fired)


PASS = Pass(apply=apply, promise=0.0)
