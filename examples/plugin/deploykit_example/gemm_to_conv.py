"""Write the classifier as a convolution of one pixel, for accelerators that compute nothing but convolutions.

Gemm(Flatten(x), W, b) = Flatten(Conv(x, W[:, :, 1, 1], b))    for x of (N, C, 1, 1)
"""

from collections import Counter

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass

_FLATTENING = ("Flatten", "Reshape", "Squeeze")


def apply(model: ir.Model) -> Outcome:
    """Rewrite each Gemm whose input is one pixel, flattened."""
    fired, refused = 0, Counter[str]()
    for node in tuple(model.graph):
        if node.op_type != "Gemm":
            continue
        flat = node.inputs[0].producer() if node.inputs[0] is not None else None
        if flat is None or flat.op_type not in _FLATTENING or not _is_one_pixel(flat.inputs[0]):
            refused["its input is not one pixel, flattened"] += 1
        elif not _is_plain(node):
            refused["it scales or transposes, or its weights are computed"] += 1
        else:
            _rewrite(model, flat, node)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _is_one_pixel(value: ir.Value | None) -> bool:
    shape = None if value is None else value.shape
    return shape is not None and len(shape) == 4 and [shape[2], shape[3]] == [1, 1]


def _is_plain(node: ir.Node) -> bool:
    scales = (node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0))
    turned = (node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0))
    return scales == (1.0, 1.0) and turned == (0, 1) and all(edit.constant(value) for value in node.inputs[1:])


def _rewrite(model: ir.Model, flat: ir.Node, node: ir.Node) -> None:
    pixel, weight, logits = flat.inputs[0], node.inputs[1], node.outputs[0]
    assert pixel is not None and weight is not None and weight.dtype is not None and weight.name is not None
    matrix = edit.array(weight)
    kernel = edit.initializer(model, f"{weight.name}_kernel", matrix[:, :, None, None], weight.dtype)
    bias = edit.initializer(model, f"{weight.name}_bias", edit.bias(node, len(matrix)), weight.dtype)
    conv = ir.node("Conv", [pixel, kernel, bias], {"kernel_shape": [1, 1]}, name=node.name)
    end = ir.node("Flatten", [conv.outputs[0]], {"axis": 1})
    model.graph.insert_before(node, [conv, end])
    name, dtype, shape = logits.name, logits.type, logits.shape
    logits.replace_all_uses_with(end.outputs[0], replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    if not flat.outputs[0].uses():
        model.graph.remove(flat, safe=True)
    end.outputs[0].name, end.outputs[0].type, end.outputs[0].shape = name, dtype, shape


PASS = Pass(apply=apply, promise=1e-5)
