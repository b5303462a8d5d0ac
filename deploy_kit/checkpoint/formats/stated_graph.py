"""A forward pass that a file states, as a list of operations → facts of the architecture.

TorchScript code, torch.export graphs and Keras configs are turned into the same few kinds of nodes, and their facts are
read here once. A fact is stated only where all places of the graph agree on it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.facts import ArchitectureFacts, Concat, Source
from deploy_kit.records.densenet import Activation, HeadActivation, HeadPool, Order, StemPool

T = TypeVar("T")
Sides = int | tuple[int, ...]
ACTIVATIONS = frozenset({"relu", "leaky_relu", "elu", "silu", "gelu"})
_HEADS = frozenset({"sigmoid", "softmax", "log_softmax"})
_POOLS = frozenset({"max_pool", "avg_pool"})
# Between the pool and the first linear layer: they reshape or scale a vector and do not pool.
_BETWEEN = frozenset({"flatten", "identity", "bn"})
_IN_A_ROW = frozenset({"conv", "linear", *ACTIVATIONS, *_BETWEEN})
_KNOWN = frozenset({"input", "conv", "bn", "cat", "linear", *ACTIVATIONS, *_HEADS, *_POOLS, *_BETWEEN})
# What decoders compute: such a graph states no facts here, and its answers decide as the witness.
_DECODING = re.compile(r"conv_transpose\dd|upsample_\w+|slice")
_AS_ONNX = "export it to ONNX with the framework it comes from, and give that file"
_MAX_WALK, _MAX_LISTED = 10_000, 6


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation; its place in the list is its name, and inputs come before it.

    Attributes:
        op: ``input``, ``conv``, ``bn``, an activation, ``max_pool``, ``avg_pool``, ``cat``, ``linear``, ``flatten``,
            ``sigmoid``, ``softmax``, ``log_softmax``, ``identity`` (dropout, casts, padding), or the name of an
            operation that no DenseNet has.
        inputs: Places of the nodes that it reads.
        kernel: Kernel of a convolution or pool: one number where all axes have the same, None where it is not stated.
        stride: Its stride, likewise.
        padding: Its padding, likewise; ``uneven`` where one side has more than the other.
        dilation: Its dilation, likewise.
        eps: Epsilon of a BN.
        slope: Slope of a leaky activation below zero.
        layer: Path of the layer in the file; empty where it has no weights.
    """

    op: str
    inputs: tuple[int, ...] = ()
    kernel: Sides | None = None
    stride: Sides | None = None
    padding: Sides | Literal["uneven"] | None = None
    dilation: Sides | None = None
    eps: float | None = None
    slope: float | None = None
    layer: str = ""


def facts(nodes: Sequence[Node], source: Source) -> ArchitectureFacts:
    """Read the facts of a DenseNet's graph; another network's graph may state some too, and its shapes will not fit.

    Args:
        nodes: Nodes in an order in which they can be computed; the last is the output.
        source: Where the graph is stated.

    Raises:
        CheckpointError: It computes what no DenseNet does, such as a normalization of its input.
    """
    # Refused rather than ignored: an operation that the rebuilt network lacks would change every logit.
    strange = sorted({node.op for node in nodes} - _KNOWN)
    if any(_DECODING.fullmatch(op) for op in strange):
        return ArchitectureFacts()
    if strange:
        raise CheckpointError(
            f"its graph computes {', '.join(map(repr, strange[:_MAX_LISTED]))}, for which a DenseNet has no place",
            hint=_AS_ONNX,
        )
    return _Graph(nodes).facts(source)


def places(nodes: Sequence[Node]) -> dict[str, tuple[str, str]]:
    """Place each layer with weights in the graph: (row, place in it), numbered in the order of computation.

    A row is what computes from one branching, concatenation or pool to the next: a dense layer, a transition, the stem.
    """
    graph, rows = _Graph(nodes), dict[int, int]()
    for place, node in enumerate(nodes):
        before = graph.before(place)
        follows = before is not None and graph.after(before) == place and {node.op, graph.op(before)} <= _IN_A_ROW
        rows[place] = rows[before] if before is not None and follows else place
    return {node.layer: (str(rows[place]), f"{place}_{node.layer}") for place, node in enumerate(nodes) if node.layer}


def sides(value: Any, *, default: Sides | None = None) -> Sides | None:
    """Return one number where all axes have the same; `default` where nothing is stated."""
    if isinstance(value, int):
        return value
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, int) for item in value):
        return default
    return int(value[0]) if len(set(value)) == 1 else tuple(value)


@dataclass(frozen=True)
class _Before:
    """What stands before a layer: its activation, its order with a BN where both are there, and a leaky one's slope."""

    kind: Activation
    order: Order | None
    slope: float | None = None


def _agreed_kind(layers: Iterable[_Before | None]) -> _Before | None:
    """Return the activation on which all agree, whatever its order; None where they differ in kind.

    Raises:
        CheckpointError: They are leaky and differ in their slopes.
    """
    layers = [None if one is None else replace(one, order=None) for one in layers]
    slopes = sorted({one.slope for one in layers if one is not None and one.slope is not None})
    if len(slopes) > 1:
        listed = ", ".join(f"{one:.4g}" for one in slopes)
        raise _unsupported(f"leaky activations of different slopes in one part of the network, {listed}")
    return _agreed(layers)


def _order(before: _Before | None) -> Order | None:
    return None if before is None else before.order


class _Graph:
    """Nodes without those that do nothing, and the readers of each."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        # What a leaky activation of slope 0 computes is a ReLU; Keras's ReLU layer can be stated so.
        self.nodes = nodes = [replace(node, op="relu") if _is_relu(node) else node for node in nodes]
        self.users: dict[int, list[int]] = {}
        for place, node in enumerate(nodes):
            if not self._idle(node):
                for read in dict.fromkeys(map(self.real, node.inputs)):
                    self.users.setdefault(read, []).append(place)
        self.convs = [place for place, node in enumerate(nodes) if node.op == "conv"]
        self.linears = [place for place, node in enumerate(nodes) if node.op == "linear"]

    @staticmethod
    def _idle(node: Node) -> bool:
        return node.op == "identity" or (node.op == "cat" and len(node.inputs) == 1)

    def real(self, place: int) -> int:
        while self._idle(self.nodes[place]) and self.nodes[place].inputs:
            place = self.nodes[place].inputs[0]
        return place

    def op(self, place: int) -> str:
        return self.nodes[place].op

    def before(self, place: int) -> int | None:
        """Return the first input of a node."""
        inputs = self.nodes[place].inputs
        return self.real(inputs[0]) if inputs else None

    def after(self, place: int) -> int | None:
        """Return the only reader of a node; None where there are none or several."""
        users = self.users.get(place, [])
        return users[0] if len(users) == 1 else None

    def facts(self, source: Source) -> ArchitectureFacts:
        stem = self._stem()
        self._verify_convolutions(stem)
        # Within a block no convolution is pooled: one that is ends a transition.
        transitions = [place for place in self.convs if place not in stem and self._pool_after(place) is not None]
        for place in transitions:
            self._verify_window(self.users[place][0], (2, 2, 0), "a transition's pool")
        head, hidden = self._head(), self._hidden()
        norms = [place for place, node in enumerate(self.nodes) if node.op == "bn"]
        behind = len(self.nodes) if head is None else head
        inner = [self._before_layer(place) for place in sorted(set(self.convs) - {*stem, *transitions})]
        joints = [self._before_layer(place) for place in transitions]
        between = [self._before_layer(place) for place in hidden]
        last = None if head is None else self._before_layer(head)
        return ArchitectureFacts(
            stem_stride=self.nodes[self.convs[0]].stride if self.convs else None,
            stem_pool=self._stem_pool(stem),
            eps=_agreed(self.nodes[place].eps for place in norms if place < behind),
            hidden_eps=_agreed(self.nodes[place].eps for place in norms if place > behind),
            concat=self._concat(),
            transition_relu=_agreed(None if joint is None else joint.kind != "none" for joint in joints),
            transition_order=_agreed(_order(joint) for joint in joints),
            transition_pool=_agreed(self._pool_after(place) for place in transitions),
            final_relu=None if last is None else last.kind != "none",
            final_order=_order(last),
            **self._activations(stem, inner, [*joints, last], between),
            dense_order=_agreed(_order(layer) for layer in inner),
            hidden_order=_agreed(_order(layer) for layer in between),
            head_pool=self._head_pool(),
            head_activation=self._head_activation(),
            source=source,
        )

    def _verify_convolutions(self, stem: list[int]) -> None:
        """Refuse a convolution that the rebuilt network would compute otherwise."""
        pooled = False
        for place in self.convs:
            pooled = pooled or any(self.op(one) in _POOLS for one in stem if one < place)
            if place in stem and pooled:
                continue  # the blur behind a pool, which is fixed
            node = self.nodes[place]
            stride = node.stride if place == self.convs[0] else 1
            self._verify_window(place, (node.kernel, stride, _half(node.kernel)), "a convolution")
            if node.dilation not in (None, 1):
                raise _unsupported(f"a convolution of dilation {node.dilation}")

    def _verify_window(self, place: int, rebuilt: tuple[Any, Any, Any], layer: str) -> None:
        """Compare (kernel, stride, padding) with what the rebuilt network has; what is not stated passes."""
        node = self.nodes[place]
        stated = (node.kernel, node.stride, node.padding)
        pairs = zip(stated, rebuilt, strict=True)
        if any(ours is not None and theirs is not None and ours != theirs for theirs, ours in pairs):
            raise _unsupported(f"{layer} with kernel {stated[0]}, stride {stated[1]} and padding {stated[2]}")

    def _stem(self) -> list[int]:
        """Return the nodes from the first convolution to where the first dense layer branches off."""
        walk: list[int] = []
        place = self.convs[0] if self.convs else None
        while place is not None and len(walk) < _MAX_WALK and self.op(place) != "cat":
            walk.append(place)
            place = self.after(place)
        return walk

    def _stem_pool(self, stem: list[int]) -> StemPool | None:
        # The walk must have ended where the block's first layer and its concatenation both read: elsewhere it saw less.
        if not stem or len(self.users.get(stem[-1], [])) < 2:
            return None
        pools = [at for at, place in enumerate(stem) if self.op(place) in _POOLS]
        if not pools:
            return "none"
        # A pool of stride 1 and a fixed convolution of stride 2 behind it: the blur of anti-aliased stems.
        if any(self.op(place) == "conv" for place in stem[pools[0] :]):
            return "blur"
        self._verify_window(stem[pools[0]], (3, 2, 1), "the stem's pool")
        return _pool_name(self.op(stem[pools[0]])) if len(pools) == 1 else None

    def _concat(self) -> Concat | None:
        """Return the order of concatenation: old features are computed before new ones, so places sort by age."""
        orders: list[Concat | None] = []
        for node in self.nodes:
            reads = [self.real(place) for place in node.inputs]
            if node.op != "cat" or len(reads) < 2 or all(self.op(self._through(place)) in _POOLS for place in reads):
                continue  # pooled vectors side by side are a head
            if reads == sorted(reads):
                orders.append("append")
            else:
                orders.append("prepend" if reads == sorted(reads, reverse=True) else None)
        return _agreed(orders)

    def _pool_after(self, place: int) -> Literal["max", "avg"] | None:
        after = self.after(place)
        return _pool_name(self.op(after)) if after is not None and self.op(after) in _POOLS else None

    def _before_layer(self, place: int) -> "_Before | None":
        """Return the activation before a layer and its order with the BN there; None where neither is there."""
        before = self.before(place)
        if before is None or self.op(before) not in ("bn", *ACTIVATIONS):
            return None if before is None or self.op(before) in _POOLS else _Before("none", None)
        further = self.before(before)
        if self.op(before) != "bn":
            normed = further is not None and self.op(further) == "bn"
            return self._activation(before, "norm_first" if normed else None)
        if further is not None and self.op(further) in ACTIVATIONS:
            return self._activation(further, "activation_first")
        return _Before("none", None)

    def _hidden(self) -> list[int]:
        """List the linear layers that read another one's answer."""
        found = []
        for place in self.linears:
            at = self.before(place)
            while at is not None and self.op(at) in ("bn", "flatten", *ACTIVATIONS):
                at = self.before(at)
            if at is not None and self.op(at) == "linear":
                found.append(place)
        return found

    def _activations(
        self,
        stem: list[int],
        dense: Iterable["_Before | None"],
        joints: Iterable["_Before | None"],
        between: Iterable["_Before | None"],
    ) -> dict[str, Any]:
        """Return activations and slopes; of stem, transitions and end a place without an activation is not asked."""
        rest = _agreed_kind(joint for joint in joints if joint is not None and joint.kind != "none")
        own = _agreed_kind(self._activation(place, None) for place in stem if self.op(place) in ACTIVATIONS)
        outer, apart = rest or own, own if rest not in (None, own) else None
        parts = {"": _agreed_kind(dense), "outer_": outer, "stem_": apart, "hidden_": _agreed_kind(between)}
        found = {f"{part}activation": None if of is None else of.kind for part, of in parts.items()}
        slopes = {part: of.slope for part, of in parts.items() if of is not None and of.kind == "leaky_relu"}
        if len(set(slopes.values())) == 1:
            slopes = {"": next(iter(slopes.values()))}
        return found | {f"{part}slope": slope for part, slope in slopes.items()}

    def _activation(self, place: int, order: Order | None) -> "_Before":
        node = self.nodes[place]
        return _Before(cast("Activation", node.op), order, node.slope if node.op == "leaky_relu" else None)

    def _head(self) -> int | None:
        """Return the node behind the body: what pools or flattens the last map."""
        place = self.before(self.linears[0]) if self.linears else None
        head = None
        while place is not None and self.op(place) in (*_BETWEEN, *_POOLS):
            if self.op(place) in (*_POOLS, "flatten"):
                head = place
            place = self.before(place)
        if place is not None and self.op(place) == "cat" and self._pooled(place):
            return self._pooled(place)[0]
        return head

    def _head_pool(self) -> HeadPool | None:
        place = self.before(self.linears[0]) if self.linears else None
        while place is not None and self.op(place) in _BETWEEN:
            place = self.before(place)
        if place is None:
            return None
        if self.op(place) in _POOLS:
            return _pool_name(self.op(place))
        both = [self.op(read) for read in self._pooled(place)]
        if sorted(both) == ["avg_pool", "max_pool"]:
            return "max_avg" if both[0] == "max_pool" else "avg_max"
        return "flatten" if self.op(place) in ACTIVATIONS else None

    def _pooled(self, place: int) -> list[int]:
        """Return the pools that a node puts side by side."""
        reads = [self._through(read) for read in self.nodes[place].inputs]
        return reads if self.op(place) == "cat" and all(self.op(read) in _POOLS for read in reads) else []

    def _through(self, place: int) -> int:
        place = self.real(place)
        while self.op(place) == "flatten" and self.nodes[place].inputs:
            place = self.real(self.nodes[place].inputs[0])
        return place

    def _head_activation(self) -> HeadActivation | None:
        if not self.linears:
            return None
        after = self.after(self.linears[-1])
        if after is None:
            return "none" if not self.users.get(self.linears[-1]) else None
        known = self.op(after) in _HEADS and not self.users.get(after)
        return cast("HeadActivation", self.op(after)) if known else None


def _is_relu(node: Node) -> bool:
    return node.op == "leaky_relu" and node.slope == 0


def _half(kernel: Sides | None) -> Sides | None:
    """Return the padding that keeps a map's size at stride 1."""
    if isinstance(kernel, tuple):
        return tuple(side // 2 for side in kernel)
    return None if kernel is None else kernel // 2


def _unsupported(layer: str) -> CheckpointError:
    return CheckpointError(f"its graph has {layer}, which is not supported", hint=_AS_ONNX)


def _pool_name(op: str) -> Literal["max", "avg"]:
    return "max" if op == "max_pool" else "avg"


def _agreed(values: Iterable[T | None]) -> T | None:
    """Return the value on which all agree; None if they differ, are None, or there is none."""
    first, *others = [*values] or [None]
    return first if all(value == first for value in others) else None
