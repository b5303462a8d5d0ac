"""Identity and Dropout (at inference) do nothing: drop them.

Within the branches of an If they stay: there an Identity is what makes a value from outside the branch's result.
"""

import onnx_ir as ir

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
        if node.op_type == "Identity" and node.domain == "":
            _drop(model, node)
    return Outcome(fired=before - len(model.graph))


def _drop(model: ir.Model, node: ir.Node) -> None:
    """Let the readers of an Identity read its input; one that makes an input or a constant an output stays."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or (result.is_graph_output() and source.producer() is None):
        return
    if result.is_graph_output() and (source.is_graph_output() or source.graph is not model.graph):
        return
    if source.shape is None:
        source.shape = result.shape
    if source.type is None:
        source.type = result.type
    is_output = result.is_graph_output()
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    if is_output:
        source.name = result.name
    model.graph.remove(node, safe=True)


def _training(node: ir.Node) -> bool:
    """Return whether the third input may switch training on."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    mode = node.inputs[2].const_value
    return mode is None or bool(mode.numpy().any())


# Before every pattern of two nodes: an Identity or a Dropout between them hides it.
PASS = Pass(apply=apply, promise=0.0, order=20)
