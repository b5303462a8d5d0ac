"""Preprocessing inside the graph: uint8 frames (N, H, W, C) in RGB order → the float tensor that the network reads.

    x = (pixel / 255 - mean) / std                      written as it stands: the numbers are those of `images.tensors`

    input → Transpose → Gather (BGR networks) → Cast → Div → Sub → Div → network

The transposition moves bytes, a quarter of what it would move behind the Cast. `passes.fold_normalization` folds the
rest into the first convolution, and INT8 reads the pixels as they are (`quantization.int8.pixel_grid`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit.base.errors import InputError
from deploy_kit.graph import edit, onnx_file
from deploy_kit.records.artifacts import BareInput, Preprocess

_LAYOUT = frozenset({"Transpose", "Gather", "Identity"})  # operators that move pixels and keep their type
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """x = scale · pixel + shift, per channel (C,) float64, from a Cast of uint8 pixels (N, C, H, W) on.

    Attributes:
        cast: Node that turns the pixels into floats.
        nodes: Nodes behind it that normalize, in order.
        result: What they compute: x.
        scale: Factor of each channel.
        shift: Offset of each channel.
    """

    cast: ir.Node
    nodes: tuple[ir.Node, ...]
    result: ir.Value
    scale: np.ndarray
    shift: np.ndarray


def take_pixels(model: ir.Model, preprocess: Preprocess | BareInput) -> Preprocess:
    """Put the normalization in front of a graph with one float32 input (N, C, H, W), in place.

    Args:
        model: The graph; its input keeps its name and becomes uint8 (N, H, W, C).
        preprocess: How images become the graph's input now.

    Returns:
        How they become it afterwards, which is embedded in the graph, too.

    Raises:
        InputError: The graph takes pixels already, its input is not float32, or its preprocessing is not known.
    """
    if isinstance(preprocess, BareInput):
        raise InputError(
            "input_pixels: how an image becomes the input is not known",
            hint="state it, e.g. --input 224x224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    (old,) = onnx_file.inputs(model)
    if preprocess.input_pixels:
        raise InputError("input_pixels: the graph takes pixels already", hint="leave --input-pixels out")
    if old.dtype != ir.DataType.FLOAT:
        found = onnx_file.specs((old,))[0].dtype
        raise InputError(
            f"input_pixels: expected a graph whose input is float, found '{old.name}' of {found}",
            hint="export the model with a float32 input",
        )
    name, batch = str(old.name), old.shape[0] if old.shape is not None else "N"
    channels, height, width = preprocess.shape
    old.name = edit.free_name(model, f"{name}.float")
    frames = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([batch, height, width, channels])
    )
    nodes, last = list[ir.Node](), frames
    for label, operator, parameters, attributes in _steps(model, name, preprocess):
        nodes.append(ir.node(operator, [last, *parameters], attributes, name=edit.free_name(model, f"{name}.{label}")))
        last = nodes[-1].outputs[0]
        last.name, last.shape = nodes[-1].name, ir.Shape([batch, channels, height, width])
        last.type = ir.TensorType(ir.DataType.UINT8 if operator in _LAYOUT else ir.DataType.FLOAT)
    old.replace_all_uses_with(last)
    model.graph.insert_before(model.graph[0], nodes)
    model.graph.inputs[list(model.graph.inputs).index(old)] = frames
    taken = replace(preprocess, input_pixels=True)
    onnx_file.embed(model, taken)
    return taken


def normalization_of(model: ir.Model) -> Normalization | None:
    """Find what normalizes the pixels of a graph that takes them, whatever passes have made of it; None elsewhere."""
    cast = next((node for node in model.graph if _turns_pixels(node)), None)
    shape = cast.outputs[0].shape if cast is not None else None
    if cast is None or shape is None or len(shape) < 2 or not isinstance(shape[1], int):
        return None
    result, nodes = cast.outputs[0], list[ir.Node]()
    scale, shift = np.ones(shape[1]), np.zeros(shape[1])
    while edit.alone(result):
        ((reader, index),) = result.uses()
        step = _affine(reader, index, shape[1])
        if step is None:
            break
        scale, shift = step[0] * scale, step[0] * shift + step[1]
        result = reader.outputs[0]
        nodes.append(reader)
    return Normalization(cast=cast, nodes=tuple(nodes), result=result, scale=scale, shift=shift)


def movers(cast: ir.Node) -> list[ir.Node]:
    """List the nodes that move pixels before a Cast reads them, in order."""
    found, value = list[ir.Node](), cast.inputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type in _LAYOUT:
        found.insert(0, node)
        value = node.inputs[0]
    return found


def with_float_input(model: ir.Model, preprocess: Preprocess) -> Preprocess:
    """Let a graph that takes pixels take the normalized float32 tensor (N, C, H, W) again, in place.

        pixel = 255 · (std · x + mean)              x need not come from whole pixels, nor from within 0..255

    Args:
        model: A float graph that takes pixels, simplified or not.
        preprocess: Its preprocessing.

    Returns:
        The preprocessing of the new input, which is embedded in the graph, too.
    """
    (frames,), cast = onnx_file.inputs(model), next(node for node in model.graph if _turns_pixels(node))
    taken, pixels = preprocess.normalized, cast.outputs[0]
    tensor = ir.Value(name=frames.name, type=pixels.type, shape=pixels.shape)
    frames.name = edit.free_name(model, f"{frames.name}.frames")
    # `fold_normalization` puts channels in BGR order back in the weights: the Cast gives RGB then.
    turned = preprocess.color == "bgr" and all(node.op_type != "Gather" for node in movers(cast))
    mean, std = (np.asarray(values)[:: -1 if turned else 1] for values in (taken.mean, taken.std))
    steps: list[_Step] = [
        ("spread", "Mul", (_column(model, f"{tensor.name}.std.255", 255 * std),), {}),
        ("whole", "Add", (_column(model, f"{tensor.name}.mean.255", 255 * mean),), {}),
    ]
    if turned:
        steps.insert(0, ("turned", "Gather", (_reversed_order(model, str(tensor.name)),), {"axis": 1}))
    nodes, last = list[ir.Node](), tensor
    for label, operator, parameters, attributes in steps:
        nodes.append(ir.node(operator, [last, *parameters], attributes, name=f"{tensor.name}.{label}"))
        last = nodes[-1].outputs[0]
        last.name, last.type, last.shape = nodes[-1].name, pixels.type, pixels.shape
    pixels.replace_all_uses_with(last)
    model.graph.insert_before(cast, nodes)
    common.RemoveUnusedNodesPass()(model)  # what moved the pixels
    model.graph.inputs[list(model.graph.inputs).index(frames)] = tensor
    onnx_file.embed(model, taken)
    return taken


_Step: TypeAlias = "tuple[str, str, tuple[ir.Value, ...], dict[str, Any]]"


def _steps(model: ir.Model, name: str, preprocess: Preprocess) -> Iterator[_Step]:
    """Return (name, operator, constants, attributes) of each node in front of the network."""
    yield "planes", "Transpose", (), {"perm": [0, 3, 1, 2]}
    if preprocess.color == "bgr":
        yield "ordered", "Gather", (_reversed_order(model, name),), {"axis": 1}
    yield "pixels", "Cast", (), {"to": int(ir.DataType.FLOAT)}
    full = edit.initializer(model, f"{name}.full", np.array(255.0), ir.DataType.FLOAT)
    yield "unit", "Div", (full,), {}
    yield "centered", "Sub", (_column(model, f"{name}.mean", np.asarray(preprocess.mean)),), {}
    yield "normalized", "Div", (_column(model, f"{name}.std", np.asarray(preprocess.std)),), {}


def _column(model: ir.Model, name: str, values: np.ndarray) -> ir.Value:
    return edit.initializer(model, name, values[:, None, None], ir.DataType.FLOAT)


def _reversed_order(model: ir.Model, name: str) -> ir.Value:
    return edit.initializer(model, f"{name}.bgr", np.array([2, 1, 0]), ir.DataType.INT64)


def _turns_pixels(node: ir.Node) -> bool:
    """Return whether a node turns uint8 values that were only moved since the input into floats."""
    value = node.inputs[0] if node.op_type == "Cast" else None
    if value is None or value.dtype != ir.DataType.UINT8 or node.attributes.get_int("to", 0) not in _FLOATS:
        return False
    moved = movers(node)
    source = moved[0].inputs[0] if moved else value
    return source is not None and source.producer() is None and source.const_value is None


def _affine(node: ir.Node, index: int, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a and b (C,) of a node that computes a·x + b of its input number `index`; None of any other node."""
    if node.op_type == "BatchNormalization" and index == 0 and all(map(edit.constant, node.inputs[1:5])):
        return None if edit.trains(node) else edit.affine(node)
    value = node.inputs[1 - index] if node.op_type in ("Add", "Sub", "Mul", "Div") else None
    if value is None or not edit.constant(value) or (index == 1 and node.op_type in ("Sub", "Div")):
        return None
    array = edit.array(value)
    # One number, or one for each channel: (C, 1, 1) or (1, C, 1, 1).
    if array.size != 1 and not (
        array.ndim in (3, 4) and array.shape[-3:] == (channels, 1, 1) and array.size == channels
    ):
        return None
    flat = np.broadcast_to(array.reshape(-1), (channels,))
    if node.op_type in ("Mul", "Div"):
        return (flat if node.op_type == "Mul" else 1 / flat), np.zeros(channels)
    return np.ones(channels), (flat if node.op_type == "Add" else -flat)
