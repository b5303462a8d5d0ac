"""Turn the pixels of a graph that takes them into floats before anything moves them, bit for bit.

    Cast(Transpose(x)) = Transpose(Cast(x))

TensorRT takes uint8 inputs, and nothing but a Cast may read them. Elsewhere it is slower: floats are four times the
bytes.
"""

import onnx_ir as ir

from deploy_kit.graph import edit, pixel_input
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Move the Cast in front of what moves the pixels."""
    found = pixel_input.normalization_of(model)
    movers = [] if found is None else pixel_input.movers(found.cast)
    if found is None or not movers:
        return Outcome(fired=0)
    cast, first, last = found.cast, movers[0], movers[-1].outputs[0]
    if not all(edit.alone(node.outputs[0]) for node in movers):
        return Outcome(fired=0, refused=(("its pixels are read before they are floats", 1),))
    frames, floats = first.inputs[0], cast.outputs[0]
    assert frames is not None
    moved_type = floats.type
    floats.replace_all_uses_with(last)
    cast.replace_input_with(0, frames)
    first.replace_input_with(0, floats)
    floats.shape = frames.shape
    for node in movers:
        node.outputs[0].type = moved_type
    model.graph.remove(cast)
    model.graph.insert_before(first, cast)
    return Outcome(fired=1)


PASS = Pass(apply=apply, promise=0.0)
