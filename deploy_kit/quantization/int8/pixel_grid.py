"""The first convolution on the grid of the pixels themselves, which are integers already.

    x = a·(p - t)                                  p: pixels 0..255; a, t per channel
    W·x = (W·a)·(p - z) + Σ (W·a)·(z - t)          z: the zero point, an integer; the step is 1

The second part is a constant and goes into the bias. A padded zero of x is the pixel t of its channel. So the input
gets a border of its own, and the convolution pads nothing: a border is exact to half a step, all else exactly. Where
the integer nearest to t is the same in all channels, the zero point is it, and the convolution pads itself.

A graph that takes pixels has them (`passes.fold_normalization`); one that takes floats was given a·(p - t), of which a
quantizer with a step and a zero point for each channel makes p again. On one step for all channels every pixel would be
rounded by another amount, as if a bit of it were lost.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file, pixel_input, receptive_window
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.records.artifacts import Preprocess

_TIE = 1e-3  # of a pixel: floats this near to the middle of two integers may be rounded to either side


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """What the first convolution reads in a graph whose pixels are known.

    Attributes:
        source: The pixels, uint8 (N, C, H, W), or floats that are quantized to them.
        nodes: Nodes that turn them into floats, and subtract the zero point.
        value: The pixels minus the zero point, float.
        grid: Grid on which the pixels stand for `value`, exactly.
        steps: Steps and zero points, (C,) each, of the quantizer that makes pixels of floats; None where they are
            there.
    """

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    value: ir.Value
    grid: Grid
    steps: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class _Stem:
    """The convolution that reads x = scale · (pixel - mean).

    Attributes:
        conv: The convolution.
        scale: Factor (C,).
        mean: Pixel (C,) that becomes 0.
        zero: Zero point of the grid.
        border: Begins and ends of the border that the input gets; None where the convolution pads itself, or nothing.
    """

    conv: ir.Node
    scale: np.ndarray
    mean: np.ndarray
    zero: int
    border: tuple[tuple[int, ...], tuple[int, ...]] | None

    def read(self, model: ir.Model, value: ir.Value) -> None:
        """Let the convolution read pixels minus the zero point, with their border, instead of x."""
        conv, weight = self.conv, edit.array(self.conv.inputs[1])
        column = (1, -1, *[1] * (weight.ndim - 2))
        weight = weight * self.scale.reshape(column)
        rest = (weight * (self.zero - self.mean).reshape(column)).reshape(len(weight), -1).sum(1)
        if self.border is not None:
            conv.attributes.pop("auto_pad", None)
            conv.attributes["pads"] = ir.AttrInt64s("pads", [0] * 2 * len(self.border[0]))
        bias = edit.bias(conv, len(weight)) + rest
        conv.resize_inputs(3)
        conv.replace_input_with(0, value)
        conv.replace_input_with(1, edit.initializer(model, f"{value.name}.weight", weight, ir.DataType.FLOAT))
        conv.replace_input_with(2, edit.initializer(model, f"{value.name}.bias", bias, ir.DataType.FLOAT))


def read_pixels(model: ir.Model) -> PixelGrid | None:
    """Let the first convolution read pixels minus an integer, in place.

    Args:
        model: A float graph behind the default passes, its shapes known.

    Returns:
        What it reads then; None where the graph does not say what pixels become, something else reads them, a size is
        open, or a mean is no pixel: below 0 or above 255.
    """
    what = onnx_file.preprocess(model)
    if what is not None and not what.input_pixels:
        return _read_floats(model, what)
    found = pixel_input.normalization_of(model)
    if found is None or [node.op_type for node in pixel_input.movers(found.cast)] != ["Transpose"]:
        return None
    stem = _stem(found.result, found.scale, -found.shift / np.where(found.scale == 0, 1, found.scale))
    if stem is None:
        return None
    if stem.border is not None:
        (transpose,) = pixel_input.movers(found.cast)
        _border(model, transpose, np.rint(stem.mean).astype(np.uint8), stem.border)
    planes, value = found.cast.inputs[0], _centered(model, found.cast, stem.zero)
    assert planes is not None
    stem.read(model, value)
    for node in reversed(found.nodes):
        model.graph.remove(node, safe=True)
    nodes = tuple(filter(None, (found.cast, value.producer())))
    return PixelGrid(source=planes, nodes=nodes, value=value, grid=Grid(scale=1.0, zero=stem.zero))


def _read_floats(model: ir.Model, what: Preprocess) -> PixelGrid | None:
    """Make pixels of the floats that they became."""
    (source,) = onnx_file.inputs(model)
    stem = _stem(source, 1 / (255 * np.asarray(what.std)), 255 * np.asarray(what.mean))
    if stem is None or np.any((stem.mean < 0) | (stem.mean > 255)):
        return None
    shape, tied = list(source.shape or ()), np.abs(stem.mean % 1 - 0.5) < _TIE
    steps: list[tuple[str, np.ndarray]] = []
    if stem.border is not None:
        begins, ends = ((0, 0, *side) for side in stem.border)
        shape = [
            size + a + b if isinstance(size, int) else size for size, a, b in zip(shape, begins, ends, strict=True)
        ]
        steps.append(("Pad", np.array([begins, ends]).reshape(-1)))
    moved = np.where(tied, 0.25, 0.0)
    if tied.any():
        steps.append(("Add", moved * stem.scale))
    steps += [("Div", stem.scale), ("Add", stem.mean - moved - stem.zero)]
    nodes, read = list[ir.Node](), [source]
    for at, (operator, numbers) in enumerate(steps):
        pad, name = operator == "Pad", edit.free_name(model, f"{source.name}.pixels.{at}")
        numbers = numbers if pad else numbers.reshape(1, -1, *[1] * (len(shape) - 2))
        constant = edit.initializer(model, f"{name}.by", numbers, ir.DataType.INT64 if pad else ir.DataType.FLOAT)
        nodes.append(ir.node(operator, [read[-1], constant], name=name))
        read.append(nodes[-1].outputs[0])
        read[-1].name, read[-1].type, read[-1].shape = name, source.type, ir.Shape(shape)
    model.graph.insert_before(model.graph[0], nodes)
    stem.read(model, read[-1])
    zeros = np.where(tied, np.floor(stem.mean), np.rint(stem.mean)).astype(np.uint8)
    return PixelGrid(
        source=read[-3], nodes=tuple(nodes[-2:]), value=read[-1], grid=Grid(scale=1.0, zero=stem.zero),
        steps=(stem.scale.astype(np.float32), zeros),
    )  # fmt: skip


def _stem(x: ir.Value, scale: np.ndarray, mean: np.ndarray) -> _Stem | None:
    """Return the convolution that alone reads x; None where another node does, or its padding is no pixel."""
    ((conv, index),) = x.uses() if edit.alone(x) else ((None, 0),)
    if conv is None or conv.op_type != "Conv" or index != 0 or conv.attributes.get_int("group", 1) != 1:
        return None
    window = receptive_window.window_of(conv)
    if window is None or not np.all(scale) or not all(map(edit.constant, filter(None, conv.inputs[1:]))):
        return None
    nearest, pads = np.rint(mean), edit.pads(conv)
    if pads and (nearest.min() < 0 or nearest.max() > 255):
        return None
    # Without padding the mean is in the bias, and the middle stands for it.
    zero = int(np.rint(mean.mean())) if pads else 128
    border = (window.begins, window.ends) if pads and np.any(nearest != zero) else None
    return _Stem(conv=conv, scale=scale, mean=mean, zero=zero, border=border)


def _border(
    model: ir.Model, transpose: ir.Node, pixel: np.ndarray, sides: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """Put a border of one pixel (C,) uint8 around the frames that a Transpose reads; `sides` are begins and ends."""
    frames, planes = transpose.inputs[0], transpose.outputs[0]
    assert frames is not None
    assert frames.shape is not None
    batch, *inner = frames.shape
    sizes = [int(size) for size in inner if isinstance(size, int)]
    ends = [(0, 0), *zip(*sides, strict=True), (0, 0)]
    # One number for each pixel and channel: with fewer, ONNX Runtime would broadcast three bytes at a time.
    inside = np.pad(np.ones((1, *sizes), bool), ends)
    row = np.broadcast_to(pixel, (1, 1, *inside.shape[2:]))
    name = str(frames.name)
    widths = edit.initializer(model, f"{name}.widths", np.transpose(ends).reshape(-1), ir.DataType.INT64)
    pad = ir.node("Pad", [frames, widths], name=edit.free_name(model, f"{name}.wide"))
    fill = ir.node(
        "Where",
        [
            edit.initializer(model, f"{name}.inside", inside, ir.DataType.BOOL),
            pad.outputs[0],
            edit.initializer(model, f"{name}.border", row, ir.DataType.UINT8),
        ],
        name=edit.free_name(model, f"{name}.bordered"),
    )
    for node in (pad, fill):
        node.outputs[0].name, node.outputs[0].type = node.name, frames.type
        node.outputs[0].shape = ir.Shape([batch, *inside.shape[1:]])
    model.graph.insert_before(transpose, (pad, fill))
    transpose.replace_input_with(0, fill.outputs[0])
    planes.shape = ir.Shape([batch, inside.shape[3], *inside.shape[1:3]])


def _centered(model: ir.Model, cast: ir.Node, zero: int) -> ir.Value:
    """Subtract the zero point from what a Cast writes."""
    pixels = cast.outputs[0]
    assert cast.inputs[0] is not None
    pixels.shape = cast.inputs[0].shape
    center = ir.node(
        "Sub",
        [pixels, edit.initializer(model, f"{pixels.name}.zero", np.array(float(zero)), ir.DataType.FLOAT)],
        name=f"{pixels.name}.whole",
    )
    value = center.outputs[0]
    value.name, value.type, value.shape = center.name, pixels.type, pixels.shape
    model.graph.insert_after(cast, center)
    return value
