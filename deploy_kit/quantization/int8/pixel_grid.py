"""The first convolution on the grid of the pixels themselves: uint8 frames are integers already.

    x = a·(p - t)                                  p: pixels 0..255; a, t per channel (`passes.fold_normalization`)
    W·x = (W·a)·(p - z) + Σ (W·a)·(z - t)          z: the zero point, an integer; the step is 1

The second part is a constant and goes into the bias. A padded zero of x is the pixel t of its channel. So the frames
get a border of their own, of the integer nearest to t in each channel, and the convolution pads nothing: a border is
exact to half a step, all else exactly. Where that integer is the same in all channels, the zero point is it, and the
convolution pads itself.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, pixel_input, receptive_window
from deploy_kit.quantization.int8.grids import Grid


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """What the first convolution reads in a graph that takes pixels.

    Attributes:
        integers: The pixels, uint8 (N, C, H, W).
        nodes: Nodes that turn them into floats, and subtract the zero point.
        value: The pixels minus the zero point, float.
        grid: Grid on which `integers` stand for `value`, exactly.
    """

    integers: ir.Value
    nodes: tuple[ir.Node, ...]
    value: ir.Value
    grid: Grid


def read_pixels(model: ir.Model) -> PixelGrid | None:
    """Let the convolution behind a folded normalization read pixels minus an integer, in place.

    Args:
        model: A float graph behind the default passes, its shapes known.

    Returns:
        What it reads then; None where the graph takes no pixels, something else reads them, a size is open, or a mean
        is no pixel: below 0 or above 255.
    """
    found = pixel_input.normalization_of(model)
    if found is None or not edit.alone(found.result) or not np.all(found.scale):
        return None
    ((conv, index),) = found.result.uses()
    moved = pixel_input.movers(found.cast)
    if conv.op_type != "Conv" or index != 0 or conv.attributes.get_int("group", 1) != 1:
        return None
    if not all(map(edit.constant, filter(None, conv.inputs[1:]))) or [node.op_type for node in moved] != ["Transpose"]:
        return None
    weight, mean = edit.array(conv.inputs[1]), -found.shift / found.scale
    nearest, pads, window = np.rint(mean), edit.pads(conv), receptive_window.window_of(conv)
    if window is None or (pads and (nearest.min() < 0 or nearest.max() > 255)):
        return None
    # Without padding the mean is in the bias already, and the middle stands for it.
    zero = int(np.rint(mean.mean())) if pads else 128
    column = (1, -1, *[1] * (weight.ndim - 2))
    weight = weight * found.scale.reshape(column)
    rest = (weight * (zero - mean).reshape(column)).reshape(len(weight), -1).sum(1)
    if pads and np.any(nearest != zero):
        _border(model, moved[0], nearest.astype(np.uint8), (window.begins, window.ends))
        conv.attributes.pop("auto_pad", None)
        conv.attributes["pads"] = ir.AttrInt64s("pads", [0] * 2 * len(window.begins))
    planes, value = found.cast.inputs[0], _centered(model, found.cast, zero)
    assert planes is not None
    conv.resize_inputs(3)
    conv.replace_input_with(0, value)
    conv.replace_input_with(1, edit.initializer(model, f"{value.name}.weight", weight, ir.DataType.FLOAT))
    bias = edit.bias(conv, len(weight)) + rest
    conv.replace_input_with(2, edit.initializer(model, f"{value.name}.bias", bias, ir.DataType.FLOAT))
    for node in reversed(found.nodes):
        model.graph.remove(node, safe=True)
    return PixelGrid(
        integers=planes, nodes=tuple(filter(None, (found.cast, value.producer()))), value=value,
        grid=Grid(scale=1.0, zero=zero),
    )  # fmt: skip


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
