"""Layer groups that stay in float: an activation keeps its grid only where a node that computes on integers needs it.

A plan is made once for the whole graph, equalization included, which is exact in float; a group that stays in float
reads the scaled values and has taken the inverse scale like any reader. What remains is which activations keep their
grid:

    input of a node on integers          its grid
    result of a node on integers         its grid, so that the runtime takes one integer kernel
    source of a moved value              its grid, where the result needs one
    everything else                      float

A concatenation whose group stays in float, and whose parts are all float, is float, too: the layers kept at the
beginning of a block concatenate floats, and a block that is kept as a whole has no integers.
"""

import dataclasses
from collections.abc import Iterable

import onnx_ir as ir

from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.int8.scale_groups import ScaleGroup, ScaleGroups

_MULTIPLIES = frozenset({"Conv", "Gemm", "BatchNormalization"})


def groups(plan: Int8Plan) -> tuple[tuple[str, int], ...]:
    """List (name, multiply-accumulates of one image) of each layer group with weights, in graph order."""
    return tuple(
        (group.name, sum(map(onnx_file.macs_of, group.weighted)))
        for group in layer_names.layer_groups(plan.model)
        if group.weighted
    )


def keep_in_float(plan: Int8Plan, names: Iterable[str]) -> Int8Plan:
    """Leave layer groups in float.

    Args:
        plan: A plan of the whole graph; not changed, and its model is shared with the result.
        names: Names of layer groups (`layer_names.find_groups`).

    Returns:
        The plan with fewer grids.

    Raises:
        UnknownNameError: Nothing in the graph has one of the names.
    """
    known = layer_names.layer_groups(plan.model)
    selected = layer_names.find_groups(known, names)
    kept = {node for group in selected for node in group.nodes if node.op_type != "Concat"}
    joins = {node for group in selected for node in group.nodes if node.op_type == "Concat"}
    blocks = {node: group.name.split(".")[0] for group in known if group.by_structure for node in group.nodes}
    # In graph order: whether a concatenation is float depends on those before it. Parts from outside the block (its
    # input, made by the stem or a transition) do not hold it back: a float concatenation restores them.
    for node in plan.model.graph:
        if node in joins and all(
            made is None or made in kept or blocks.get(made) != blocks.get(node)
            for made in map(maker, grouping.activations(node))
        ):
            kept.add(node)
    needed = _needed(plan, kept)
    return dataclasses.replace(
        plan,
        grids={value: grid for value, grid in plan.grids.items() if value in needed},
        known=dict(plan.known),
        kept=frozenset(kept),
        fitted={} if kept else plan.fitted,
    )


def copied(plan: Int8Plan) -> Int8Plan:
    """Copy a plan with its model, for a writer that changes both."""
    model = ir.serde.deserialize_model(ir.serde.serialize_model(plan.model))
    new = dict(zip(_values(plan.model), _values(model), strict=True))
    nodes = dict(zip(plan.model.graph, model.graph, strict=True))
    groups = {
        group: ScaleGroup(
            values=tuple(new[v] for v in group.values),
            sources=tuple(new[v] for v in group.sources),
            concats=group.concats,
        )
        for group in plan.groups.all
    }
    return dataclasses.replace(
        plan,
        model=model,
        groups=ScaleGroups(all=tuple(groups.values()), of={new[v]: groups[g] for v, g in plan.groups.of.items()}),
        grids={new[v]: grid for v, grid in plan.grids.items()},
        seen={new[v]: seen for v, seen in plan.seen.items()},
        means={new[v]: mean for v, mean in plan.means.items()},
        spans={new[v]: span for v, span in plan.spans.items()},
        rows=tuple(dataclasses.replace(row, group=groups[row.group]) for row in plan.rows),
        known={new[v]: moments for v, moments in plan.known.items()},
        kept=frozenset(nodes[node] for node in plan.kept),
    )


def maker(value: ir.Value) -> ir.Node | None:
    """Return the node that makes a value; behind a ReLU that is fused into a node, that node."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Relu":
        return grouping.fused_into(producer) or producer
    return producer


def in_float(value: ir.Value, plan: Int8Plan) -> bool:
    """Return whether a value is made by a node that stays in float."""
    return maker(value) in plan.kept


def _needed(plan: Int8Plan, kept: set[ir.Node]) -> set[ir.Value]:
    """Find the values that must have a grid, from the outputs backwards: a move needs one where its result does."""
    needed = set[ir.Value]()
    for node in reversed(tuple(plan.model.graph)):
        if node in kept or not node.outputs:
            continue
        values = grouping.activations(node)
        if node.op_type in grouping.READERS and grouping.quantizable(node) and all(v in plan.grids for v in values):
            needed.update(values)
            if node.op_type in _MULTIPLIES:  # with its ReLU, which is part of the same integer kernel
                relu = grouping.fused_relu(node)
                needed.add((relu or node).outputs[0])
        elif grouping.shares_grid(node) and node.outputs[0] in needed:
            needed.update(values)
    return needed


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
