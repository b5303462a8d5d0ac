"""Where channels can be removed: a convolution whose outputs one other convolution alone reads, channel by channel.

The bottleneck of a dense layer (1×1 → BN → ReLU → 3×3) and of a ResNet's block are such places, and so are two
convolutions of any kernel in a row. Removing a channel there changes no other tensor's shape.
"""

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.graph import edit, layer_names, onnx_file

CHANNELWISE = frozenset(
    {
        "BatchNormalization",
        "Clip",
        "Elu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Relu",
        "Sigmoid",
        "Tanh",
    }
)
"""Operators that compute each channel by itself; of these a BN alone has a parameter for each channel."""

WIDEST = 6144
"""Most inputs of one output pixel: the moments of a wider layer would take more than 150 MB."""


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """One place.

    Attributes:
        name: Name of the layer group of its reader.
        producer: Convolution that makes the channels.
        between: What computes on them, in order.
        reader: Convolution that reads them.
    """

    name: str
    producer: ir.Node
    between: tuple[ir.Node, ...]
    reader: ir.Node

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(shape_of(self.producer.inputs[1])[0])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both convolutions for one image."""
        return onnx_file.macs_of(self.producer) + onnx_file.macs_of(self.reader)


def find_bottlenecks(model: ir.Model) -> tuple[tuple[Bottleneck, ...], tuple[tuple[str, int], ...]]:
    """Find the places of a graph, in graph order.

    A convolution belongs to one place at most, so that removals at two do not change each other's cost: of places that
    share one, the one with more multiply-accumulates is taken.

    Returns:
        The places, and (reason, number of convolutions) for those whose channels cannot be removed.
    """
    names = {node: group.name for group in layer_names.layer_groups(model) for node in group.nodes}
    found, refused = list[Bottleneck](), Counter[str]()
    for node in model.graph:
        if node.op_type != "Conv":
            continue
        between, reader, reason = _follow(node)
        if reader is None:
            refused[reason] += 1
            continue
        name = names.get(reader) or reader.name or str(reader.outputs[0].name)
        found.append(Bottleneck(name=name, producer=node, between=between, reader=reader))
    taken, chosen = set[ir.Node](), set[Bottleneck]()
    for place in sorted(found, key=lambda place: -place.macs):  # a stable sort: of equals the first
        if taken.isdisjoint((place.producer, place.reader)):
            taken |= {place.producer, place.reader}
            chosen.add(place)
    return tuple(place for place in found if place in chosen), tuple(sorted(refused.items()))


def refittable(node: ir.Node) -> bool:
    """Return whether a node is linear in constant weights that every output channel has for itself."""
    if not _plain(node):
        return False
    if node.op_type == "Conv":
        return True
    moves = node.attributes
    plain = moves.get_float("alpha", 1.0) == 1.0 and moves.get_float("beta", 1.0) == 1.0
    return plain and not moves.get_int("transA", 0)


def width(node: ir.Node) -> int:
    """Count the inputs of one output of a convolution or Gemm: channels times taps."""
    shape = shape_of(node.inputs[1])
    if node.op_type == "Gemm":
        return shape[1] if node.attributes.get_int("transB", 0) else shape[0]
    product = 1
    for size in shape[1:]:
        product *= size
    return product


def inputs_of(node: ir.Node) -> int:
    """Count the channels that a convolution or Gemm reads."""
    return width(node) if node.op_type == "Gemm" else shape_of(node.inputs[1])[1]


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """Return the shape of a constant."""
    assert value is not None
    assert value.const_value is not None
    return tuple(value.const_value.numpy().shape)


def _follow(producer: ir.Node) -> tuple[tuple[ir.Node, ...], ir.Node | None, str]:
    """Follow the outputs of a convolution to their reader; without one, say why."""
    if not _plain(producer):
        return (), None, "it has groups or computed weights"
    between, value = list[ir.Node](), producer.outputs[0]
    while True:
        if value.is_graph_output() or len(value.uses()) != 1:
            return (), None, "several nodes read its channels"
        (reader, index), *_ = value.uses()
        if reader.op_type == "Conv" and index == 0:
            break
        if (
            reader.op_type not in CHANNELWISE
            or index != 0
            or not all(map(edit.constant, filter(None, reader.inputs[1:])))
        ):
            return (), None, f"{reader.op_type} reads its channels"
        if reader.op_type == "BatchNormalization" and edit.trains(reader):
            return (), None, "a BN behind it is in training mode"
        between.append(reader)
        value = reader.outputs[0]
    if not _plain(reader):
        return (), None, "its reader has groups or computed weights"
    if width(reader) > WIDEST:
        return (), None, f"its reader has more than {WIDEST} inputs for each output"
    return tuple(between), reader, ""


def _plain(node: ir.Node) -> bool:
    if node.op_type not in ("Conv", "Gemm") or not all(map(edit.constant, filter(None, node.inputs[1:]))):
        return False
    return node.attributes.get_int("group", 1) == 1
