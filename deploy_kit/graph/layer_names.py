"""Names of layer groups by structure: ``stem``, ``denseblock3.denselayer14``, ``transition2``, ``head``.

The same group has the same name in every graph of a network: exported by any exporter, simplified, quantized. Names of
nodes are not read, except in a graph without dense blocks: there each node with weights is a group of its own.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.base.errors import UnknownNameError, nearest
from deploy_kit.graph import layer_location
from deploy_kit.graph.layer_location import GraphStructure, LayerLocation
from deploy_kit.records.layer_times import UNKNOWN_REGION


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """The nodes with weights that belong together, and the nodes that belong to them.

    Attributes:
        name: Name by structure; in a graph without dense blocks the name of its node with weights.
        nodes: Nodes in graph order. A dense layer ends with the concatenation that appends its result.
        by_structure: Whether the name comes from the structure.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    by_structure: bool = True

    @property
    def weighted(self) -> tuple[ir.Node, ...]:
        """Its convolutions and matrix products, without a BN or a pool that is written as a convolution."""
        return tuple(node for node in self.nodes if _works(node))

    @property
    def parts(self) -> "tuple[LayerGroup, ...]":
        """A group for each convolution, e.g. ``denseblock1.denselayer2.conv1``; empty where there is but one."""
        if len(self.weighted) < 2:
            return ()
        return tuple(
            dataclasses.replace(self, name=f"{self.name}.conv{number}", nodes=nodes)
            for number, nodes in enumerate(_cut(self.nodes), start=1)
        )


def layer_groups(model: ir.Model) -> tuple[LayerGroup, ...]:
    """Find the layer groups of a graph, in the order of their first weights.

    A node that belongs to several groups, such as a constant that all of them read, is in none.
    """
    structure = GraphStructure(model)
    names = _names(structure)
    members: dict[str, list[ir.Node]] = {}
    for node, name in zip(structure.nodes, names, strict=True):
        if name != UNKNOWN_REGION:
            members.setdefault(name, []).append(node)
    named = [LayerGroup(name=name, nodes=tuple(nodes)) for name, nodes in members.items()]
    rest = [node for node, name in zip(structure.nodes, names, strict=True) if name == UNKNOWN_REGION]
    named += [
        LayerGroup(name=_name_of(_work_of(nodes)), nodes=nodes, by_structure=False)
        for nodes in _cut(rest)
        if any(map(_works, nodes))
    ]
    order = {node: index for index, node in enumerate(structure.nodes)}
    return tuple(sorted(named, key=lambda group: order[(group.weighted or group.nodes)[0]]))


def named_locations(model: ir.Model) -> dict[str, LayerLocation]:
    """Locate each node as `layer_location.locations` does, with the name of its layer group for its region."""
    group_of: dict[str, str] = {}
    for group in layer_groups(model):
        for node in group.nodes:
            group_of |= dict.fromkeys(filter(None, (node.name, *(v.name for v in node.outputs))), group.name)
    return {
        name: dataclasses.replace(location, region=group_of.get(name, UNKNOWN_REGION))
        for name, location in layer_location.locations(model).items()
    }


def find_groups(known: Sequence[LayerGroup], names: Iterable[str]) -> tuple[LayerGroup, ...]:
    """Find groups by name: a group, a part of one, or all of a dense block (``denseblock3``).

    Args:
        known: All groups of a graph.
        names: Names of groups, parts or dense blocks.

    Returns:
        Groups and parts in graph order, each once.

    Raises:
        UnknownNameError: Nothing in the graph has this name; the nearest is the hint.
    """
    choices = [choice for group in known for choice in (group, *group.parts)]
    selected = set[str]()
    for name in names:
        meant = {group.name for group in known if group.name.startswith(f"{name}.") and group.by_structure}
        meant |= {choice.name for choice in choices if choice.name == name}
        if not meant:
            regions_of = {choice.name.split(".")[0] for choice in choices if choice.by_structure}
            raise UnknownNameError(
                f"no layer group is called '{name}' here",
                hint=nearest(name, {*(choice.name for choice in choices), *regions_of}),
            )
        selected |= meant
    return tuple(choice for choice in choices if choice.name in selected)


def _names(structure: GraphStructure) -> list[str]:
    """Return the name of each node's group; `UNKNOWN_REGION` where it has none."""
    names = [re.sub(r"(block|transition) (\d+)", _joined, region) for region in structure.regions()]
    layers = _layers(structure, names)
    # Weights on their way belong to what uses them; users come later in order.
    for index in reversed(range(len(names))):
        if index not in structure.fed and names[index] != UNKNOWN_REGION:
            used = {layers[user] for user in structure.after(index) if user in layers}
            layers[index] = used.pop() if len(used) == 1 else 0
    return [
        (f"{name}.denselayer{layers[index]}" if layers[index] else UNKNOWN_REGION) if name.startswith("dense") else name
        for index, name in enumerate(names)
    ]


def _joined(match: "re.Match[str]") -> str:
    return f"{'dense' * (match[1] == 'block')}{match[1]}{match[2]}"


def _layers(structure: GraphStructure, names: Sequence[str]) -> dict[int, int]:
    """Number the dense layers of each block from 1: what lies between two concatenations is one.

    Returns:
        Number of the layer of each node of a block that depends on an input.
    """
    inside = [index for index in sorted(structure.fed) if names[index].startswith("dense")]
    pieces = _pieces(structure, names, inside)
    counts: dict[str, int] = {}
    layers: dict[int, int] = {}
    # A layer's last node with weights depends on all layers before it: sorted, they are in the order of the layers, in
    # whatever order an exporter wrote the rest.
    last_work = {pieces[index]: index for index in inside if index in pieces and _works(structure.nodes[index])}
    for piece, index in sorted(last_work.items(), key=lambda entry: entry[1]):
        counts[names[index]] = counts.get(names[index], 0) + 1
        layers |= dict.fromkeys((one for one in pieces if pieces[one] == piece), counts[names[index]])
    for index in inside:  # a concatenation ends the newest layer among its inputs
        if index not in pieces:
            layers[index] = max((layers.get(b, 1) for b in structure.before(structure.nodes[index])), default=1)
    for index in reversed(inside):  # a node that only passes a map on belongs to the first layer that reads it
        if index not in layers:
            layers[index] = min((layers[user] for user in structure.after(index) if user in layers), default=1)
    return layers


def _pieces(structure: GraphStructure, names: Sequence[str], inside: Sequence[int]) -> dict[int, int]:
    """Number the sets of a block's nodes that are connected without a concatenation; concatenations get no number."""
    nodes = structure.nodes
    within = [at for at in inside if nodes[at].op_type != "Concat"]
    return layer_location.connected(
        within, ((b, at) for at in within for b in structure.before(nodes[at]) if names[b] == names[at])
    )


def _cut(nodes: Sequence[ir.Node]) -> list[tuple[ir.Node, ...]]:
    """Cut a list of nodes behind each one with weights; what follows the last one stays with it."""
    pieces: list[list[ir.Node]] = [[]]
    for node in nodes:
        pieces[-1].append(node)
        if _works(node):
            pieces.append([])
    rest = pieces.pop()
    pieces = pieces or [[]]
    pieces[-1] += rest
    return [tuple(piece) for piece in pieces]


def _works(node: ir.Node) -> bool:
    return layer_location.kind_of(node) in ("conv", "gemm")


def _work_of(nodes: Iterable[ir.Node]) -> ir.Node:
    return next(node for node in nodes if _works(node))


def _name_of(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)
