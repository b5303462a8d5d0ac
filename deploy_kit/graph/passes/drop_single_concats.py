"""Concat(x) = x: torch.cat of one tensor, which opens every dense block of torchvision's DenseNet."""

import onnx_ir as ir

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Drop every Concat with one input, unless it makes an output of the graph."""
    fired, kept = 0, 0
    for node in tuple(model.graph):
        if node.op_type != "Concat" or len(node.inputs) != 1:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or result.is_graph_output():
            kept += 1
            continue
        result.replace_all_uses_with(source)
        model.graph.remove(node, safe=True)
        fired += 1
    return Outcome(fired=fired, refused=(("it makes an output of the graph", kept),) if kept else ())


PASS = Pass(apply=apply, promise=0.0, order=40)
