"""Write each output of a Split as a Slice: the same numbers, and each part is moved by a node of one output."""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Replace every Split whose outputs have known sizes."""
    fired, unknown = 0, 0
    for node in tuple(model.graph):
        if node.op_type != "Split":
            continue
        axis, source = node.attributes.get_int("axis", 0), node.inputs[0]
        sizes = [value.shape[axis] if value.shape is not None else None for value in node.outputs]
        if source is None or source.shape is None or not all(isinstance(size, int) for size in sizes):
            unknown += 1
            continue
        ends = np.cumsum([size for size in sizes if isinstance(size, int)])
        for value, end, size in zip(node.outputs, ends, sizes, strict=True):
            assert isinstance(size, int)
            if value.uses() or value.is_graph_output():
                edit.put_slice(model, node, value, (source, axis % len(source.shape)), (int(end) - size, int(end)))
        model.graph.remove(node, safe=True)
        fired += 1
    return Outcome(fired=fired, refused=(("the sizes of its parts are not known", unknown),) if unknown else ())


PASS = Pass(apply=apply, promise=0.0)
