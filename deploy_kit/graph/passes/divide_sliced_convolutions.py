"""A convolution whose results are sliced by channels as one convolution for each slice: its rows.

    (W·x + b)[i : j] = W[i : j]·x + b[i : j]

A Dual Path Network adds one part of a convolution's channels and concatenates the rest: apart, each part has a grid.
"""

from itertools import pairwise

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Divide every convolution that only slices of channels read, no channel twice."""
    fired = 0
    for conv in tuple(model.graph):
        readers = [user for user, _ in conv.outputs[0].uses()] if conv.op_type == "Conv" else []
        ranges = [edit.slice_of(user) for user in readers]
        parts = [part for part in ranges if part is not None and part[0] == 1 and part[3] == 1]
        if len(readers) < 2 or len(parts) < len(readers) or conv.outputs[0].is_graph_output():
            continue
        ends = sorted((begin, end) for _, begin, end, _ in parts)
        grouped = conv.attributes.get_int("group", 1) != 1 or not all(map(edit.constant, filter(None, conv.inputs[1:])))
        if grouped or any(end > begin for (_, end), (begin, _) in pairwise(ends)):
            continue
        weight, dtype = edit.array(conv.inputs[1]), conv.inputs[1].dtype if conv.inputs[1] is not None else None
        bias = edit.bias(conv, len(weight))
        assert dtype is not None
        for user, (_, begin, end, _) in zip(readers, parts, strict=True):
            old = user.outputs[0]
            constants = [
                edit.initializer(model, f"{old.name}.{word}", values[begin:end], dtype)
                for word, values in (("rows", weight), ("bias", bias))
            ]
            attributes = {key: value.value for key, value in conv.attributes.items()}
            made = ir.node("Conv", [conv.inputs[0], *constants], attributes, name=user.name)
            edit.put_in_place(model, user, old, made)
        model.graph.remove(conv, safe=True)
        fired += 1
    return Outcome(fired=fired)


PASS = Pass(apply=apply, promise=0.0)
