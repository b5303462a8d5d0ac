"""Write ReduceMean over all pixels as GlobalAveragePool, for which runtimes have integer and half-precision kernels.

torch's dynamo exporter writes the end of every network as ReduceMean.
"""

from collections import Counter

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass

_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)  # bfloat16 only from operator set 22 on


def apply(model: ir.Model) -> Outcome:
    """Rewrite where the axes are constant, are all but the first two, and stay in the shape."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        if node.op_type != "ReduceMean" or node.inputs[0] is None:
            continue
        rank, axes = len(node.inputs[0].shape or ()), _axes(node)
        if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
            refused["it does not average over the pixels alone"] += 1
        elif not node.attributes.get_int("keepdims", 1):
            refused["it drops the axes"] += 1
        elif node.inputs[0].dtype not in _TYPES:
            refused["the pool does not take its type"] += 1
        else:
            _rewrite(model, node)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _axes(node: ir.Node) -> tuple[int, ...]:
    """Return the axes, an attribute before operator set 18 and an input since; empty where they are computed."""
    if len(node.inputs) > 1 and edit.constant(node.inputs[1]):
        return tuple(int(axis) for axis in edit.array(node.inputs[1]))
    return tuple(node.attributes.get_ints("axes", ()))


def _rewrite(model: ir.Model, node: ir.Node) -> None:
    old = node.outputs[0]
    pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    new = pool.outputs[0]
    model.graph.insert_before(node, pool)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    new.name, new.type, new.shape = old.name, old.type, old.shape


# Before `pool_before_conv`, which swaps pools and knows no ReduceMean.
PASS = Pass(apply=apply, promise=1e-5, order=70)
