"""A transposed convolution as a convolution at low resolution whose channels are laid out as pixels.

    y[s·q + p] = Σ_j x[q − j]·W[s·j + p]        s: stride, p = 0 … s − 1: phase, j = 0 … J − 1, J = ⌈k/s⌉

For each phase this is a convolution of J taps; s² of them per channel, and DepthToSpace puts them side by side. Neither
ONNX Runtime nor OpenVINO's CPU plugin computes a transposed convolution of an ONNX file on integers, and both do this.
It multiplies (J·s/k)² as often: not more for a kernel of 2 and a stride of 2, 1.8 times for a kernel of 3.
"""

import math
from collections import Counter

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Rewrite every transposed convolution of images with constant weights and one stride."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        if node.op_type != "ConvTranspose":
            continue
        reason = _refusal(node)
        if reason:
            refused[reason] += 1
            continue
        _replace(model, node)
        fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _refusal(node: ir.Node) -> str:
    """Return why a transposed convolution stays; empty if it need not."""
    moves, source = node.attributes, node.inputs[0]
    if not all(edit.constant(value) for value in node.inputs[1:] if value is not None):
        return "its weights are computed"
    strides = set(moves.get_ints("strides", (1, 1)))
    if source is None or source.shape is None or len(source.shape) != 4:
        return "DepthToSpace has two axes of pixels"
    if len(strides) > 1 or any(step != 1 for step in moves.get_ints("dilations", ())):
        return "its strides differ, or it is dilated"
    sizes = (*source.shape.dims[2:], *(node.outputs[0].shape.dims[2:] if node.outputs[0].shape else (None,)))
    if not all(isinstance(size, int) for size in sizes) or "output_shape" in moves or edit.automatic(node):
        return "its padding or size is not stated"
    return ""


def _replace(model: ir.Model, node: ir.Node) -> None:
    old, source, moves = node.outputs[0], node.inputs[0], node.attributes
    assert source is not None and source.shape is not None and old.shape is not None
    group, stride = moves.get_int("group", 1), moves.get_ints("strides", (1, 1))[0]
    weight = edit.array(node.inputs[1])
    begins = moves.get_ints("pads", (0,) * 4)[:2]
    small, sizes = ([n for n in value.shape.dims[2:] if isinstance(n, int)] for value in (source, old) if value.shape)
    # Output padding may reach beyond the kernel: zeros among the taps give it.
    taps = [
        max(math.ceil(k / stride), math.ceil((begin + size) / stride) - n + 1)
        for k, begin, size, n in zip(weight.shape[2:], begins, sizes, small, strict=True)
    ]
    fill = [(0, n * stride - size) for n, size in zip(taps, weight.shape[2:], strict=True)]
    n_in, n_out = weight.shape[0] // group, weight.shape[1] * group
    # (g, in, out, J, s, J, s) → (g, out, s, s, in, J, J), taps reversed: a convolution correlates.
    parts = np.pad(weight, [(0, 0), (0, 0), *fill]).reshape(
        group, n_in, n_out // group, taps[0], stride, taps[1], stride
    )
    turned = parts.transpose(0, 2, 4, 6, 1, 3, 5)[..., ::-1, ::-1].reshape(n_out * stride**2, n_in, *taps)
    bias = np.repeat(edit.bias(node, n_out), stride**2)
    name, dtype = str(old.name), source.dtype or ir.DataType.FLOAT
    constants = [
        edit.initializer(model, f"{name}.phases", turned, dtype),
        edit.initializer(model, f"{name}.bias", bias, dtype),
    ]
    around = [n - 1 for n in taps]
    conv = ir.node(
        "Conv", [source, *constants], {"group": group, "kernel_shape": taps, "pads": around * 2}, name=node.name
    )
    low = [n + more for n, more in zip(small, around, strict=True)]
    conv.outputs[0].name, conv.outputs[0].type = edit.free_name(model, f"{name}.as_channels"), old.type
    conv.outputs[0].shape = ir.Shape((old.shape[0], n_out * stride**2, *low))
    model.graph.insert_before(node, conv)
    wide = [size * stride for size in low]
    made = ir.node("DepthToSpace", conv.outputs, {"blocksize": stride, "mode": "CRD"}) if stride > 1 else conv
    if stride > 1:
        made.outputs[0].name, made.outputs[0].type = edit.free_name(model, f"{name}.as_pixels"), old.type
        made.outputs[0].shape = ir.Shape((old.shape[0], n_out, *wide))
        model.graph.insert_before(node, made)
    value = made.outputs[0]
    for axis, (begin, size, there) in enumerate(zip(begins, sizes, wide, strict=True), start=2):
        if size != there:
            value = edit.put_slice(model, node, None, (value, axis), (begin, begin + size))
    value.name, shape = None, old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    value.name, value.shape = name, shape


PASS = Pass(apply=apply, promise=1e-5)
