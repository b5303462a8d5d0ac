"""Float graph → groups of activations that share one grid.

Concatenation, pooling, clipping, slicing, enlarging by repetition and reshaping move values and compute none (an
average pool computes none beyond the range). Where such nodes read and write one grid, they work on the integers as
they are and nothing is quantized again: a whole dense block, its concatenations and its maxima, is one group.
"""

from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.quantization.int8 import channel_moves

READERS = frozenset({"Conv", "ConvTranspose", "Gemm", "BatchNormalization", "GlobalAveragePool", "Add"})
"""Operators that read integers and compute values of their own range."""


@dataclass(frozen=True, kw_only=True)
class ScaleGroup:
    """Activations on one grid.

    Attributes:
        values: All activations of the group, in graph order.
        sources: Activations that a node computes, or the input: they decide the range.
        concats: Number of concatenations among its nodes.
    """

    values: tuple[ir.Value, ...]
    sources: tuple[ir.Value, ...]
    concats: int


@dataclass(frozen=True, kw_only=True)
class ScaleGroups:
    """All groups of a graph, and the group of each activation."""

    all: tuple[ScaleGroup, ...]
    of: dict[ir.Value, ScaleGroup]


def shares_grid(node: ir.Node) -> bool:
    """Return whether a node works on quantized values as they are: its inputs and its output share a grid."""
    if len(node.outputs) > 1:  # a second output, such as a max pool's indices, is not on the grid
        return False
    if node.op_type == "Concat":
        # Along another axis, equalization may have scaled parts of one channel differently.
        shape = node.outputs[0].shape
        along = (1, 1 - len(shape)) if shape is not None else (1,)
        return node.attributes.get_int("axis", 1) in along and len(activations(node)) == len(node.inputs)
    if node.op_type in ("Max", "Min"):
        return len(node.inputs) == 2 and bound(node) is not None
    if node.op_type == "Relu":
        return fused_into(node) is None
    return channel_moves.moves(node)


def fused_into(relu: ir.Node) -> ir.Node | None:
    """Return the computing node that a ReLU is fused into; None where it clips a value that was only moved."""
    source = relu.inputs[0]
    assert source is not None
    producer = source.producer()
    if (
        producer is None
        or producer.op_type == "Relu"
        or shares_grid(producer)
        or source is not producer.outputs[0]
        or only_reader(source) is not relu
    ):
        return None
    return producer


def fused_relu(node: ir.Node) -> ir.Node | None:
    """Return the ReLU that is fused into a computing node."""
    reader = only_reader(node.outputs[0])
    return reader if reader is not None and reader.op_type == "Relu" and fused_into(reader) is node else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the only node that reads a value; None where there are others, or the value is an output."""
    readers = [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def bound(node: ir.Node) -> ir.Value | None:
    """Return the constant of a Max or Min, one number or one for each channel, where it is the second input."""
    source, value = (node.inputs[0], node.inputs[1]) if len(node.inputs) == 2 else (None, None)
    if source is None or value is None or value.const_value is None or source.shape is None:
        return None
    wide = [axis for axis, size in enumerate(value.const_value.shape) if size != 1]
    aligned = len(value.const_value.shape) == len(source.shape) and wide == [1]
    return value if aligned or not wide else None


def activations(node: ir.Node) -> tuple[ir.Value, ...]:
    """List the float inputs of a node that are no constants: for most nodes the first alone."""
    inputs = (value for value in node.inputs if value is not None and value.const_value is None)
    return tuple(value for value in inputs if value.dtype in (None, ir.DataType.FLOAT))


def find_scale_groups(model: ir.Model, *, results: bool = False) -> ScaleGroups:
    """Group the activations that a quantized node will read.

    Args:
        model: A float graph.
        results: Group also the results of convolutions that reach further quantized nodes through operators that
            compute in float, e.g. a LeakyRelu. Runtimes whose integer convolution must write integers would compute
            such a convolution in float otherwise.
    """
    grouped = _read_by_integers(model, results=results)
    parent: dict[ir.Value, ir.Value] = {}

    def root(value: ir.Value) -> ir.Value:
        while parent.get(value, value) is not value:
            value = parent[value]
        return value

    for node in model.graph:
        result = node.outputs[0]
        if result in grouped and shares_grid(node):
            for value in activations(node):
                parent[root(value)] = root(result)
    members: dict[ir.Value, list[ir.Value]] = {}
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value in grouped:
            members.setdefault(root(value), []).append(value)
    groups = tuple(_group(values) for values in members.values())
    return ScaleGroups(all=groups, of={value: group for group in groups for value in group.values})


def _group(values: list[ir.Value]) -> ScaleGroup:
    producers = [value.producer() for value in values]
    sources = tuple(v for v, p in zip(values, producers, strict=True) if p is None or not shares_grid(p))
    concats = sum(producer is not None and producer.op_type == "Concat" for producer in producers)
    return ScaleGroup(values=tuple(values), sources=sources, concats=concats)


def _read_by_integers(model: ir.Model, *, results: bool) -> set[ir.Value]:
    """Find the activations that a node on integers reads, at once or moved; not those between a node and its ReLU."""
    # `leading` holds what leads to a node on integers by whatever way, also through operators that compute in float.
    read, leading = set[ir.Value](), set[ir.Value]()
    for node in reversed(tuple(model.graph)):
        relu = fused_relu(node)
        result = node.outputs[0] if relu is None else relu.outputs[0]
        computes = node.op_type in READERS and quantizable(node)
        if results and computes and node.op_type == "Conv" and result in leading:
            read.add(result)
        if computes or (shares_grid(node) and result in read):
            read.update(activations(node))
        if computes or not leading.isdisjoint(node.outputs):
            leading.update(activations(node))
    return {value for value in read if value.dtype in (None, ir.DataType.FLOAT) and not _hidden(value)}


def _hidden(value: ir.Value) -> bool:
    """Return whether the value exists only between a node and the ReLU that is fused into it."""
    reader = only_reader(value)
    return reader is not None and reader.op_type == "Relu" and fused_into(reader) is not None


def quantizable(node: ir.Node) -> bool:
    """Return whether a reader can compute on integers: its parameters are constants, a BN can become a convolution."""
    if node.op_type == "Add":
        return len(activations(node)) == 2
    if node.op_type == "Gemm":
        moves = node.attributes
        plain = moves.get_float("alpha", 1.0) == 1.0 and moves.get_float("beta", 1.0) == 1.0
        return plain and not moves.get_int("transA") and all(v.const_value is not None for v in node.inputs[1:] if v)
    # As a convolution a BN needs pixels; with further outputs it is in training mode.
    if node.op_type == "BatchNormalization" and (len(node.outputs[0].shape or ()) < 3 or len(node.outputs) > 1):
        return False
    return all(value.const_value is not None for value in node.inputs[1:] if value is not None)
