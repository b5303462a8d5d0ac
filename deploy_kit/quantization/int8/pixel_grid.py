"""The first convolution on the grid of the pixels themselves: uint8 frames are integers already.

    x = a·(p - t)                                       p: pixels 0..255; a, t per channel (`passes.fold_normalization`)
    W·x = (W·a)·(p - z) + (W·a)·(z - t)                 z: the zero point, an integer near t; the step is 1
    second part: one more channel with the pixel v everywhere, weights Σ (W·a)·(z - t) / (v - z)

A convolution that pads reads the integer z there: 0 of the first part, and 0 of the second, as the channel is padded,
too. So a padded zero is the pixel t of its channel, exactly and whatever fraction it has, without a border of its own.
Without padding the second part is a constant, and goes into the bias.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, pixel_input
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
        What it reads then; None where the graph takes no pixels, or something else reads them.
    """
    found = pixel_input.normalization_of(model)
    if found is None or not edit.alone(found.result) or not np.all(found.scale):
        return None
    ((conv, index),) = found.result.uses()
    weight = conv.inputs[1] if conv.op_type == "Conv" and index == 0 else None
    pixels = found.cast.inputs[0]
    if not edit.constant(weight) or conv.attributes.get_int("group", 1) != 1 or pixels is None or weight is None:
        return None
    array = edit.array(weight)
    column = (1, -1, *[1] * (array.ndim - 2))
    array, mean = array * found.scale.reshape(column), -found.shift / found.scale
    # Without padding the mean is in the bias already, and the middle stands for it.
    zero = int(np.clip(np.rint(mean.mean()), 0, 255)) if edit.pads(conv) else 128
    rest = (array * (zero - mean).reshape(column)).sum(1, keepdims=True)
    bias = edit.bias(conv, len(array))
    if edit.pads(conv):
        full = 255 if zero < 128 else 0
        array = np.concatenate([array, rest / (full - zero)], axis=1)
        pixels = _with_channel(model, found.cast, full)
    else:
        bias = bias + rest.reshape(len(array), -1).sum(1)
    value = _centered(model, found.cast, zero)
    conv.resize_inputs(3)
    conv.replace_input_with(0, value)
    conv.replace_input_with(1, edit.initializer(model, f"{value.name}.weight", array, ir.DataType.FLOAT))
    conv.replace_input_with(2, edit.initializer(model, f"{value.name}.bias", bias, ir.DataType.FLOAT))
    for node in reversed(found.nodes):
        model.graph.remove(node, safe=True)
    return PixelGrid(
        integers=pixels, nodes=tuple(filter(None, (found.cast, value.producer()))), value=value,
        grid=Grid(scale=1.0, zero=zero),
    )  # fmt: skip


def _with_channel(model: ir.Model, cast: ir.Node, full: int) -> ir.Value:
    """Add a channel of pixels `full` to what a Cast reads: to the frames, in which channels lie side by side."""
    planes = cast.inputs[0]
    assert planes is not None
    made = planes.producer()
    from_frames = made is not None and made.op_type == "Transpose" and edit.alone(planes)
    reader, axis = (made, 3) if made is not None and from_frames else (cast, 1)
    source = reader.inputs[0]
    assert source is not None
    sizes = [size + (at == axis) if isinstance(size, int) else size for at, size in enumerate(source.shape or ())]
    border = [int(at == 4 + axis) for at in range(8)]
    constants = [
        edit.initializer(model, f"{source.name}.border", np.array(border), ir.DataType.INT64),
        edit.initializer(model, f"{source.name}.full", np.array(full), ir.DataType.UINT8),
    ]
    pad = ir.node("Pad", [source, *constants], name=edit.free_name(model, f"{source.name}.wide"))
    wide = pad.outputs[0]
    wide.name, wide.type, wide.shape = pad.name, source.type, ir.Shape(sizes)
    model.graph.insert_before(reader, pad)
    reader.replace_input_with(0, wide)
    if not from_frames:
        return wide
    planes.shape = ir.Shape([sizes[0], sizes[3], sizes[1], sizes[2]])
    return planes


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
