"""Move a Pad into the convolution or max pool behind it; Keras, tf2onnx and timm's "same" pools write the two apart.

    conv(pad(x, 0), pads = p)         = conv(x, pads = p + q)        a convolution pads with zeros
    maxpool(pad(x, -∞), pads = p)     = maxpool(x, pads = p + q)     a max pool pads with -∞
    maxpool(pad(x, 0), pads = p)      = maxpool(x, pads = p + q)     where x ≥ 0: behind a ReLU

The zeros of a Pad change no maximum of numbers that are not negative. One map less is written, INT8 can equalize the
channels in front of the pool, and meets no infinite number.
"""

from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Move the border of every Pad into the convolution or max pool that alone reads it."""
    fired, refused = 0, Counter[str]()
    for pad in tuple(model.graph):
        reader = _reader(pad)
        if reader is None:
            continue
        reason = _refusal(pad, reader)
        if reason:
            refused[reason] += 1
            continue
        _fold(model, pad, reader)
        fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _reader(pad: ir.Node) -> ir.Node | None:
    """Return the node that alone reads what a Pad writes, if it is one that can pad itself."""
    if pad.op_type != "Pad" or not edit.alone(pad.outputs[0]):
        return None
    ((reader, index),) = pad.outputs[0].uses()
    return reader if index == 0 and reader.op_type in ("Conv", "MaxPool") else None


def _refusal(pad: ir.Node, reader: ir.Node) -> str:
    """Return why the border cannot move; empty if it can."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return "it does not pad with a constant"
    if len(pad.inputs) < 2:
        return "its border is an attribute, as before operator set 11"
    if not edit.constant(pad.inputs[1]) or any(value is not None for value in pad.inputs[3:]):
        return "its border is not known, or is given for some axes only"
    lowest = reader.op_type == "MaxPool" and _pads_with_lowest(pad)
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if value is not None and not lowest and not (edit.constant(value) and not edit.array(value).any()):
        return "it does not pad with zeros"
    border = _border(pad)
    n_axes = len(border) // 2
    if min(border) < 0 or any(border[axis] or border[axis + n_axes] for axis in (0, 1)):
        return "it cuts off, or pads images or channels"
    if reader.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its reader pads by a rule"
    return _refusal_of_pool(pad, reader, lowest=lowest) if reader.op_type == "MaxPool" else ""


def _pads_with_lowest(pad: ir.Node) -> bool:
    """Return whether a Pad writes what a max pool of its type pads with: -∞, or the lowest number."""
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if value is None or not edit.constant(value):
        return False
    found = edit.array(value)
    return found.dtype.kind == "f" and bool((found <= np.finfo(np.float32).min).all())


def _refusal_of_pool(pad: ir.Node, pool: ir.Node, *, lowest: bool) -> str:
    source = pad.inputs[0]
    producer = source.producer() if source is not None else None
    if not lowest and (producer is None or producer.op_type != "Relu"):
        return "its max pool may read negative numbers"
    kernel, pads = pool.attributes.get_ints("kernel_shape", ()), _summed(pad, pool)
    narrow = all(side < size for side, size in zip(pads, (*kernel, *kernel), strict=True))
    dilated = any(step != 1 for step in pool.attributes.get_ints("dilations", ()))
    ceiling = bool(pool.attributes.get_int("ceil_mode", 0))
    if len(pool.outputs) > 1:
        return "its max pool gives indices too"
    return "" if narrow and not (dilated or ceiling) else "a window of its max pool may hold padding alone"


def _border(pad: ir.Node) -> tuple[int, ...]:
    """Return the border: all axes' begins, then all their ends."""
    return tuple(int(side) for side in edit.array(pad.inputs[1]))


def _summed(pad: ir.Node, reader: ir.Node) -> tuple[int, ...]:
    """Add the border to the reader's own pads: spatial begins, then ends."""
    border = _border(pad)
    half = len(border) // 2
    spatial = (*border[2:half], *border[half + 2 :])
    own = reader.attributes.get_ints("pads", (0,) * len(spatial))
    return tuple(a + b for a, b in zip(own, spatial, strict=True))


def _fold(model: ir.Model, pad: ir.Node, reader: ir.Node) -> None:
    reader.attributes["pads"] = ir.AttrInt64s("pads", _summed(pad, reader))
    reader.attributes.pop("auto_pad", None)
    reader.replace_input_with(0, pad.inputs[0])
    model.graph.remove(pad, safe=True)


PASS = Pass(apply=apply, promise=0.0, order=30)
