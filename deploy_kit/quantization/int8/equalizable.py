"""Which channels of a group can be scaled: their makers' parameters and their readers' take a factor, exactly.

A channel is free where a convolution, a BN or a product with gates makes it, and where all that reads it, at once or
moved by concatenations, slices and poolings, can take the inverse. What a sum makes, or reads, is not; nor is what a
Split passes on, or an output.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.quantization.int8 import channel_moves
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.scale_groups import ScaleGroup, ScaleGroups

LINEAR = ("Conv", "ConvTranspose")
_SCALABLE = ("BatchNormalization", "ConvTranspose")  # whatever their groups
_ABSORBING = ("Conv", *_SCALABLE)


@dataclass(frozen=True, kw_only=True)
class Freedom:
    """The channels of a group that can be scaled.

    Attributes:
        channels: (C,) bool for each value of the group; empty where a number of channels is not known.
        refused: Why some cannot; empty if all can.
    """

    channels: dict[ir.Value, np.ndarray]
    refused: str

    def of(self, value: ir.Value) -> bool:
        """Return whether a channel of a value can."""
        return value in self.channels and bool(self.channels[value].any())

    @property
    def any(self) -> bool:
        """Whether one channel can."""
        return any(map(self.of, self.channels))


def freedom(group: ScaleGroup, groups: ScaleGroups) -> Freedom:
    """Find the channels of a group that can be scaled."""
    makers = {source: _fixed_by_maker(source, group) for source in group.sources}
    channels, reasons = dict[ir.Value, np.ndarray](), dict[ir.Value, str]()
    for value in reversed(group.values):  # readers first
        n = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
        if not isinstance(n, int):
            return Freedom(channels={}, refused="its number of channels is not known")
        free, reasons[value] = _free_for_readers(value, n, channels, group, groups)
        channels[value] = free & (not makers.get(value))
    for value in group.values:  # makers first
        if value not in makers:
            channels[value] = _free_in_parts(value, channels)
    found = (*(makers[source] for source in group.sources), *(reasons[value] for value in group.values))
    refused = next(filter(None, found), "")
    if refused and not group.concats:  # what is fixed is beside nothing that could be brought to its range
        channels = {value: np.zeros_like(free) for value, free in channels.items()}
    return Freedom(channels=channels, refused=refused)


def refusal(group: ScaleGroup, groups: ScaleGroups) -> str:
    """Return why not every channel of a group can be scaled; empty if each can."""
    return freedom(group, groups).refused


def shifts(group: ScaleGroup, groups: ScaleGroups) -> bool:
    """Return whether a group is scaled as a whole and its channels may be shifted, too."""
    found = freedom(group, groups)
    return not found.refused and may_shift(group, found)


def may_shift(group: ScaleGroup, found: Freedom) -> bool:
    """Return whether the channels of a group that are scaled may be shifted, too.

    Shifted, a channel's 0 is no longer 0, and padding is: where a reader pads, channels are scaled alone.
    """
    values = [value for value in group.values if found.of(value)]
    means = [pool.outputs[0] for value in values for pool in pooled(value)]
    return not any(_pads(node) for value in (*values, *means) for node in value.consumers())


def _fixed_by_maker(source: ir.Value, group: ScaleGroup) -> str:
    producer = maker(source)
    if producer is not None and _scales(producer, group):
        return ""
    return f"{producer.op_type if producer else 'the input'} makes a part of it, not a convolution"


def _free_for_readers(
    value: ir.Value, n: int, channels: dict[ir.Value, np.ndarray], group: ScaleGroup, groups: ScaleGroups
) -> tuple[np.ndarray, str]:
    """Return (n,) the channels of a value whose readers can take the inverse, and why the others' cannot.

    Args:
        value: A value of the group.
        n: Number of its channels.
        channels: Those of the values behind it.
        group: The group.
        groups: All groups.
    """
    if value.is_graph_output():
        return np.zeros(n, bool), "a part of it is an output"
    free, reason = np.ones(n, bool), ""
    for node in value.consumers():
        result = node.outputs[0]
        if groups.of.get(result) is group and grouping.shares_grid(node):
            origins = channel_moves.origins(node)
            if origins is None:
                return np.zeros(n, bool), f"{node.op_type} moves its channels"
            if node.op_type == "DepthToSpace":
                if value not in group.sources or channel_moves.tied(value) is None:
                    return np.zeros(n, bool), "DepthToSpace joins channels that others read, too"
                free &= channels[result].all()
                continue
            fixed = np.zeros(origins.max(initial=-1) + n + 1, bool)
            fixed[origins[~channels[result]]] = True
            for begin in channel_moves.places(node, value):
                free &= ~fixed[begin : begin + n]
        elif not (_absorbs(node) or (group.concats and _mean_is_absorbed(node))):
            return np.zeros(n, bool), f"{node.op_type} reads it and cannot take the inverse scale"
    return free, reason


def _free_in_parts(value: ir.Value, channels: dict[ir.Value, np.ndarray]) -> np.ndarray:
    """Return (n,) the channels of a moved value that come from channels that can be scaled."""
    producer = value.producer()
    assert producer is not None
    origins = channel_moves.origins(producer)
    if origins is None:
        return np.zeros_like(channels[value])
    parts = np.concatenate([channels[part] for part in grouping.activations(producer)])
    return np.asarray(parts[origins].all(1))


def _absorbs(node: ir.Node) -> bool:
    """Return whether a reader's parameters can take the inverse scale of its input."""
    if node.op_type not in _ABSORBING or not grouping.quantizable(node):
        return False
    return node.op_type in _SCALABLE or node.attributes.get_int("group", 1) == 1 or depthwise(node)


def _mean_is_absorbed(node: ir.Node) -> bool:
    """Return whether a node is a mean over pixels that nothing but such readers reads."""
    mean = node.outputs[0]
    return node.op_type == "GlobalAveragePool" and not mean.is_graph_output() and all(map(_absorbs, mean.consumers()))


def pooled(value: ir.Value) -> list[ir.Node]:
    """List the global average pools that read a value."""
    return [node for node in value.consumers() if node.op_type == "GlobalAveragePool"]


def _scales(maker: ir.Node, group: ScaleGroup) -> bool:
    """Return whether a node's parameters, or its gates, can scale each channel of its result."""
    if maker.op_type == "Mul":
        return bool(group.concats) and gate(maker) is not None
    # A BN that nothing is concatenated with has a grid of its own, and writers shift it with its ReLU (`saturate`).
    makers = (*LINEAR, *(["BatchNormalization"] if group.concats else []))
    return maker.op_type in makers and grouping.quantizable(maker)


def gate(product: ir.Node) -> int | None:
    """Return which input of a product has one number for each channel of the other, as squeeze-and-excitation has."""
    whole = product.outputs[0].shape
    if whole is None or len(whole) < 3 or not all(isinstance(side, int) for side in whole[1:]):
        return None
    small = [1] * (len(whole) - 2)
    for index, value in enumerate(product.inputs):
        shape = value.shape if value is not None else None
        if shape is not None and len(shape) == len(whole) and list(shape[1:]) == [whole[1], *small]:
            return index
    return None


def depthwise(conv: ir.Node) -> bool:
    """Return whether each channel of a convolution's result comes from the same channel of its input alone."""
    shape = edit.array(conv.inputs[1]).shape
    return bool(shape[1] == 1 and conv.attributes.get_int("group", 1) == shape[0])


def _pads(node: ir.Node) -> bool:
    """Return whether a node reads zeros beside its input, which the shifted values would not be.

    A transposed convolution reads them between the pixels.
    """
    return node.op_type == "ConvTranspose" or (node.op_type in ("Conv", "AveragePool") and edit.pads(node))


def maker(source: ir.Value) -> ir.Node | None:
    """Return the node whose weights decide a source: behind a fused ReLU, its convolution."""
    producer = source.producer()
    if producer is not None and producer.op_type == "Relu":
        return grouping.fused_into(producer)
    return producer
