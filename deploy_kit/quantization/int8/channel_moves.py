"""Nodes that move values and compute none: which may share a grid, and where each channel of their result comes from.

Concat: part after part      Slice, Gather of channels: some      DepthToSpace: each from s² channels
MaxPool, Relu, Max, Min, Resize (nearest), Pad (reflected or repeated): the channels as they are
Reshape, Transpose, Flatten, …: not known
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit

_AS_THEY_ARE = frozenset({"MaxPool", "AveragePool", "Relu", "Max", "Min", "Identity", "Resize", "Pad"})
# Behind a Transpose OpenVINO 2026.4 convolves in float.
_UNKNOWN = frozenset({"Flatten", "Reshape", "Squeeze"})
MOVERS = _AS_THEY_ARE | _UNKNOWN | {"Concat", "Slice", "Gather", "DepthToSpace"}
"""Operators that may move values; `moves` says of a node whether it does."""


def moves(node: ir.Node) -> bool:
    """Return whether each value of the result is one of the first input, for operators where that depends."""
    if node.op_type == "Resize":
        placed = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
        nearest = node.attributes.get_string("mode", "nearest") == "nearest" and placed != "tf_crop_and_resize"
        return nearest and _constant(node) and _channels_stay(node)
    if node.op_type == "Pad":
        repeats = node.attributes.get_string("mode", "constant") in ("reflect", "edge", "wrap")
        return repeats and _constant(node) and _channels_stay(node)
    if node.op_type == "Slice":
        cut = edit.slice_of(node)
        return cut is not None and cut[0] > 0
    if node.op_type == "Gather":
        index = node.inputs[1]
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        vector = index is not None and index.const_value is not None and len(index.const_value.shape) == 1
        return vector and shape is not None and node.attributes.get_int("axis", 0) in (1, 1 - len(shape))
    return node.op_type in _AS_THEY_ARE | _UNKNOWN | {"DepthToSpace"}


def origins(node: ir.Node) -> np.ndarray | None:
    """Return (C, n) the n channels of a mover's inputs, counted through all of them, that channel c comes from.

    Returns:
        None where channels do not stay together, or are not known.
    """
    counts = [value.shape[1] if value.shape is not None and len(value.shape) > 1 else None for value in _floats(node)]
    sizes = [size for size in counts if isinstance(size, int)]
    if len(sizes) < len(counts) or node.op_type in _UNKNOWN:
        return None
    every = np.arange(sum(sizes))
    if node.op_type == "Slice" and (cut := edit.slice_of(node)) is not None and cut[0] == 1:
        every = every[cut[1] : cut[2] : cut[3]]
    if node.op_type == "Gather":
        every = every[edit.array(node.inputs[1]).astype(np.int64)]
    if node.op_type == "DepthToSpace":
        side = node.attributes.get_int("blocksize", 1) ** 2
        by_depth = node.attributes.get_string("mode", "DCR") == "DCR"
        return every.reshape(side, -1).T if by_depth else every.reshape(-1, side)
    return every.reshape(-1, 1)


def places(node: ir.Node, value: ir.Value) -> list[int]:
    """Return where the channels of a value begin among those of all inputs of a mover, once for each time it reads it.

    Args:
        node: A node for which `origins` are known.
        value: One of its inputs.
    """
    inputs = _floats(node)
    begins = np.cumsum([0, *(entry.shape[1] for entry in inputs[:-1] if entry.shape is not None)])
    return [int(begin) for begin, entry in zip(begins, inputs, strict=True) if entry is value]


def tied(value: ir.Value) -> np.ndarray | None:
    """Return (K, n) channels of a value that must be scaled alike, as a DepthToSpace that alone reads it joins them."""
    readers = value.consumers()
    if [node.op_type for node in readers] != ["DepthToSpace"] or value.is_graph_output():
        return None
    return origins(readers[0])


def _constant(node: ir.Node) -> bool:
    return all(value.const_value is not None for value in node.inputs[1:] if value is not None)


def _channels_stay(node: ir.Node) -> bool:
    before, after = (node.inputs[0].shape if node.inputs[0] is not None else None), node.outputs[0].shape
    return before is not None and after is not None and before.dims[:2] == after.dims[:2] and len(before) > 2


def _floats(node: ir.Node) -> list[ir.Value]:
    first_alone = node.op_type not in ("Concat",)
    return [value for value in (node.inputs[:1] if first_alone else node.inputs) if value is not None]
