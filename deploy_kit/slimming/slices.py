"""Whole layers taken out of a concatenation: who reads a layer's output, and what is cut where it is constant.

A layer without channels gives its bias at every pixel. BN, activations and pools without padding keep a constant
constant, and a convolution without padding, or a Gemm, adds W c to its bias: cutting the layer is exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file, passes
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.slimming import surgery
from deploy_kit.slimming.bottlenecks import CHANNELWISE, refittable


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A node that has channels of a layer's output among its inputs.

    Attributes:
        node: The node.
        index: Which of its inputs.
        channels: Which channels of it.
    """

    node: ir.Node
    index: int
    channels: range

    @property
    def reads(self) -> bool:
        """Whether it is where the channels end: a convolution or Gemm."""
        return self.node.op_type in ("Conv", "Gemm")


def cuts_of(value: ir.Value) -> tuple[Cut, ...]:
    """Follow a layer's output (N, C, …) to the weights that read it.

    Returns:
        Every node on the way, in no particular order; empty where a constant could not be cut out exactly, or where no
        concatenation takes it.
    """
    size = _channels(value)
    if size is None or not any(user.op_type == "Concat" for user, _ in value.uses()):
        return ()
    found, rest = list[Cut](), [(value, range(size))]
    while rest:
        at, channels = rest.pop()
        if at.is_graph_output():
            return ()
        for node, index in at.uses():
            moved = _through(node, index, channels)
            if moved is None:
                return ()
            found.append(Cut(node=node, index=index, channels=channels))
            if not found[-1].reads:
                rest.append((node.outputs[0], moved))
    return tuple(found)


def offered(values: Sequence[ir.Value]) -> list[tuple[Cut, ...]]:
    """Follow the outputs of layers that may all go: a concatenation keeps something else, or its layers stay."""
    found = [cuts_of(value) for value in values]
    within: dict[ir.Node, dict[int, int]] = {}
    for index, cuts in enumerate(found):
        for cut in cuts:
            if cut.node.op_type == "Concat":
                sizes = within.setdefault(cut.node, {})
                sizes[index] = sizes.get(index, 0) + len(cut.channels)
    for node, sizes in within.items():
        if sum(sizes.values()) == _channels(node.outputs[0]):
            for index in sizes:
                found[index] = ()
    return found


def widest(cuts: Iterable[Cut]) -> tuple[ir.Value, range]:
    """Return the concatenation that has most channels beside the layer's own, and where its own are."""
    ends = [(_channels(c.node.outputs[0]) or 0, c) for c in cuts if c.node.op_type == "Concat"]
    _, last = max(ends, key=lambda end: end[0])
    moved = _through(last.node, last.index, last.channels)
    assert moved is not None
    return last.node.outputs[0], moved


def cut_out(model: ir.Model, layers: Iterable[ir.Node]) -> None:
    """Take out layers whose output is constant, because their weights are 0.

    Args:
        model: The graph; what has less channels loses its shape.
        layers: Convolutions with weights of their own and 0, of whose outputs `cuts_of` knows the readers.
    """
    gone: dict[ir.Node, dict[int, set[int]]] = {}
    results = [layer.outputs[0] for layer in layers]
    for value in results:
        for cut in cuts_of(value):
            gone.setdefault(cut.node, {}).setdefault(cut.index, set()).update(cut.channels)
    if not gone:
        return
    constants = _constants(
        model, {node: sorted(at[0]) for node, at in gone.items() if node.op_type in ("Conv", "Gemm")}
    )
    for node, at in gone.items():
        if node not in constants:
            node.outputs[0].shape = None
        if node.op_type == "Concat":
            continue
        channels = sorted(at[0])
        if node in constants:
            _without_inputs(model, node, channels, constants[node])
        elif node.op_type == "BatchNormalization":
            surgery.without(model, node, range(1, 5), channels)
        elif node.op_type == "Reshape":
            shape = edit.array(node.inputs[1]).astype(np.int64)
            shape[1] -= len(channels) * (shape[1] > 0)  # 0 and -1 follow from the input
            name = f"{node.outputs[0].name}.shape"
            node.replace_input_with(1, edit.initializer(model, name, shape, ir.DataType.INT64))
    for value in results:
        for node, _ in tuple(value.uses()):
            kept = [one for one in node.inputs if one is not value]
            node.resize_inputs(len(kept))
            for index, one in enumerate(kept):
                node.replace_input_with(index, one)
    passes.apply_passes(model, ("drop_single_concats", "remove_unused"))


def _constants(model: ir.Model, wanted: dict[ir.Node, list[int]]) -> dict[ir.Node, np.ndarray]:
    """Read what nodes are given in channels that hold the same at every pixel of every image: of an image of zeros."""
    import torch

    found: dict[ir.Node, np.ndarray] = {}

    def visit(node: ir.Node, x: torch.Tensor) -> None:
        if node in wanted:
            found[node] = x.flatten(2)[0, wanted[node], 0].numpy() if x.ndim > 2 else x[0, wanted[node]].numpy()

    shape = onnx_file.specs(onnx_file.inputs(model))[0].shape
    with torch.no_grad():
        TorchGraph(model).forward(torch.zeros([n if isinstance(n, int) else 1 for n in shape]), visit)
    return found


def _without_inputs(model: ir.Model, node: ir.Node, channels: list[int], constant: np.ndarray) -> None:
    """Cut inputs out of a convolution or Gemm, and put what they gave into its bias."""
    weight = edit.array(node.inputs[1])
    axis = 0 if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else 1
    gave = np.moveaxis(weight, axis, 0)[channels]
    gave = gave.reshape(*gave.shape[:2], -1).sum(2).T @ constant.astype(np.float64)
    surgery.own_parameters(model, node)
    surgery.set_parameters(node, np.delete(weight, channels, axis), edit.bias(node, len(gave)) + gave)


def _through(node: ir.Node, index: int, channels: range) -> range | None:
    """Return where channels of an input are in the output; None where their constants do not stay such."""
    op, constants = node.op_type, all(map(edit.constant, filter(None, node.inputs[1:])))
    if op == "Concat" and node.attributes.get_int("axis", 1) == 1:
        sizes = [_channels(value) for value in node.inputs[:index]]
        start = sum(size for size in sizes if size is not None)
        return None if None in sizes else range(start + channels.start, start + channels.stop)
    if index != 0 or not constants:
        return None
    if op == "Conv":
        return None if edit.pads(node) or not refittable(node) else channels
    if op == "BatchNormalization":
        return None if edit.trains(node) else channels
    if op == "AveragePool":
        return None if edit.averages_padding(node) else channels
    if op == "MaxPool":
        return None if edit.misses(node) or len(node.outputs) > 1 else channels
    if op == "Reshape":  # of (N, C, 1, 1) to (N, C)
        shapes = [
            None if one is None or one.shape is None else list(one.shape) for one in (node.inputs[0], node.outputs[0])
        ]
        before, after = shapes
        return (
            channels
            if before and after and len(after) == 2 and before[1:] == [after[1], *[1] * len(before[2:])]
            else None
        )
    if op == "Gemm":
        return channels if refittable(node) else None
    if op == "Flatten":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        ones = shape is not None and all(size == 1 for size in shape.dims[2:])
        return channels if ones and node.attributes.get_int("axis", 1) == 1 else None
    return channels if op in CHANNELWISE or op in ("GlobalAveragePool", "GlobalMaxPool") else None


def _channels(value: ir.Value | None) -> int | None:
    """Return the number of channels of an activation; None where it is open."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    size = value.shape[1]
    return size if isinstance(size, int) else None
