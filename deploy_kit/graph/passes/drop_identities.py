"""Identity and Dropout (at inference) do nothing: drop them. The library's own pass removes Identity."""

import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Drop every node that returns its input; counts the nodes that are gone."""
    before = len(model.graph)
    for node in tuple(model.graph):
        if node.op_type == "Dropout" and len(node.outputs) == 1 and not _training(node):
            node.op_type = "Identity"
            node.resize_inputs(1)
            for name in tuple(node.attributes):
                del node.attributes[name]
    common.IdentityEliminationPass()(model)
    return Outcome(fired=before - len(model.graph))


def _training(node: ir.Node) -> bool:
    """Return whether the third input may switch training on."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    mode = node.inputs[2].const_value
    return mode is None or bool(mode.numpy().any())


# Before every pattern of two nodes: an Identity or a Dropout between them hides it.
PASS = Pass(apply=apply, promise=0.0, order=20)
