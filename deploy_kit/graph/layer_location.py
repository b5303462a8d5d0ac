"""Where in a DenseNet a node stands: stem, dense block, transition or head, found in the graph's structure.

A dense block is what lies between a value that is carried on and the last concatenation that carries it. Names are not
read, so that graphs of any exporter, simplified or quantized, give the same regions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.records.layer_times import UNKNOWN_REGION, LayerKind

# A block's concatenations are connected without passing one of these: what follows makes maps of its own.
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
_CUTS = frozenset({"Conv", "Gemm", "MatMul", *_POOLS})
_GRIDS = ("QuantizeLinear", "DequantizeLinear", "Cast")
_PASSED_ON = frozenset({"Relu", "LeakyRelu", "Clip", "Max", "Min", "Identity", *_GRIDS})
_KINDS: Mapping[str, LayerKind] = {
    "Conv": "conv",
    "Gemm": "gemm",
    "MatMul": "gemm",
    "BatchNormalization": "bn_relu",
    **dict.fromkeys(("Relu", "LeakyRelu", "Clip", "Elu", "Sigmoid", "Mul", "Add", "Max", "Min"), "bn_relu"),
    **dict.fromkeys(_POOLS, "pool"),
    **dict.fromkeys(_GRIDS, "requantize"),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose"), "copy"),
    "Concat": "concat",
}


@dataclass(frozen=True, kw_only=True)
class LayerLocation:
    """Where a node stands and what it is.

    Attributes:
        region: ``stem``, ``block 1``, ``transition 1``, ``head`` …; `UNKNOWN_REGION` where the structure does not say.
        kind: What the node does.
        made_by: LayerKind of the node whose result this one passes on; its own kind where it computes itself.
    """

    region: str
    kind: LayerKind
    made_by: LayerKind


def connected(indices: Iterable[int], pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return for each index one that stands for all that `pairs` connect it with; pairs of others are passed over."""
    parent = {index: index for index in indices}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for one, other in pairs:
        if one in parent and other in parent:
            parent[root(one)] = root(other)
    return {index: root(index) for index in parent}


def locations(model: ir.Model) -> dict[str, LayerLocation]:
    """Locate each node, under its own name and those of its outputs.

    A name that stands for nodes of several regions is left out: some exporters give nodes the same name.
    """
    graph = GraphStructure(model)
    regions = graph.regions()
    located: dict[str, LayerLocation] = {}
    ambiguous = set[str]()
    for index, node in enumerate(graph.nodes):
        location = LayerLocation(region=regions[index], kind=kind_of(node), made_by=_work_before(node))
        for name in filter(None, {node.name, *(value.name for value in node.outputs)}):
            if located.setdefault(name, location).region != location.region:
                ambiguous.add(name)
    return {name: location for name, location in located.items() if name not in ambiguous}


def kind_of(node: ir.Node) -> LayerKind:
    """Return a node's kind.

    INT8 layouts write a BN as a depthwise 1×1 convolution, and an average pool as a depthwise convolution whose stride
    is its kernel: both count as what they stand for.
    """
    weight = node.inputs[1] if node.op_type == "Conv" else None
    shape = tuple(weight.shape or ()) if weight is not None else ()
    if shape and node.attributes.get_int("group", 1) == shape[0] != 1 and shape[1] == 1:
        kernel = shape[2:]
        if all(side == 1 for side in kernel):
            return "bn_relu"
        if tuple(node.attributes.get_ints("strides", ())) == kernel:
            return "pool"
    return _KINDS.get(node.op_type, "other")


def _work_before(node: ir.Node) -> LayerKind:
    """Return the kind of the nearest node, from this one up, that does not merely pass values on."""
    while node.op_type in _PASSED_ON and node.inputs and node.inputs[0] is not None:
        before = node.inputs[0].producer()
        if before is None:
            break
        node = before
    return kind_of(node)


class GraphStructure:
    """A graph's nodes in order, and for each the set of its ancestors.

    Attributes:
        nodes: Nodes in graph order; the number of a node is its index here.
        fed: Numbers of the nodes that depend on an input; the others make weights.
    """

    def __init__(self, model: ir.Model) -> None:
        self.nodes = tuple(model.graph)
        self._index = {node: index for index, node in enumerate(self.nodes)}
        # Ancestors as the bits of one integer: what two nodes share is an `&`, and as numbers follow the graph's order,
        # the highest bit is the last of them.
        self._above = list[int]()
        for index, node in enumerate(self.nodes):
            bits = 1 << index
            for before in self.before(node):
                bits |= self._above[before]
            self._above.append(bits)
        self.fed = self._reached_by_input(model)

    def regions(self) -> list[str]:
        """Return the region of each node."""
        blocks = sorted(filter(None, map(self._block, self._joined())))
        named = [self._outside(index, blocks) for index in range(len(self.nodes))]
        for number, (_, _, members) in enumerate(blocks, start=1):
            for index in members:
                named[index] = f"block {number}"
        # Weights on their way (a DequantizeLinear, a Cast) stand where they are used; users come later in order.
        for index in reversed(range(len(self.nodes))):
            if index not in self.fed:
                users = {named[user] for user in self.after(index)}
                named[index] = users.pop() if len(users) == 1 else UNKNOWN_REGION
        return named

    def before(self, node: ir.Node) -> Iterable[int]:
        """Iterate over the numbers of the nodes whose outputs a node reads."""
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None:
                yield self._index[producer]

    def after(self, index: int) -> Iterable[int]:
        """Iterate over the numbers of the nodes that read a node's outputs."""
        return (self._index[use.node] for value in self.nodes[index].outputs for use in value.uses())

    def _reached_by_input(self, model: ir.Model) -> set[int]:
        inputs = {value for value in model.graph.inputs if value.name not in model.graph.initializers}
        reached = set[int]()
        for index, node in enumerate(self.nodes):
            if inputs.intersection(filter(None, node.inputs)) or reached.intersection(self.before(node)):
                reached.add(index)
        return reached

    def _joined(self) -> list[list[int]]:
        """Group concatenations that are connected without passing a convolution or a pool."""
        nodes, fed = self.nodes, sorted(self.fed)
        roots = connected(
            fed, ((b, at) for at in fed if nodes[at].op_type not in _CUTS for b in self.before(nodes[at]))
        )
        groups: dict[int, list[int]] = {}
        for index in fed:
            if nodes[index].op_type == "Concat":
                groups.setdefault(roots[index], []).append(index)
        return list(groups.values())

    def _block(self, concats: list[int]) -> tuple[int, int, frozenset[int]] | None:
        """Return (entry, last concatenation, nodes) of a dense block; None where nothing is computed in between.

        The entry is the last node that all inputs of the first concatenation depend on; -1 where that is none.
        """
        first, last = concats[0], concats[-1]
        shared = ~0
        for before in self.before(self.nodes[first]):
            shared &= self._above[before]
        entry = (shared & self._above[first]).bit_length() - 1
        until = 0
        for concat in concats:
            until |= self._above[concat]
        members = frozenset(
            index
            for index in range(max(entry, 0), last + 1)
            if index != entry and until >> index & 1 and (entry < 0 or self._above[index] >> entry & 1)
        )
        # A head that concatenates two pools is no block: between its entry and the concatenation nothing convolves.
        convolves = "conv" in {kind_of(self.nodes[index]) for index in members}
        return (entry, last, members) if convolves else None

    def _outside(self, index: int, blocks: list[tuple[int, int, frozenset[int]]]) -> str:
        """Return the region of a node that is in no block, by the number of blocks above it."""
        passed = sum(self._above[index] >> last & 1 for _, last, _ in blocks)
        if not blocks:
            return UNKNOWN_REGION
        if passed == len(blocks):
            return "head"
        entry = blocks[passed][0]
        # The stem and the transitions are what the next block's entry depends on; a side branch is neither.
        if entry < 0 or not self._above[entry] >> index & 1:
            return UNKNOWN_REGION
        return f"transition {passed}" if passed else "stem"
