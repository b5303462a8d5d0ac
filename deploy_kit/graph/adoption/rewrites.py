"""Rewrites of a graph that could change numbers; whoever adopts the file runs it before and after.

Float types:  float16, bfloat16 → float32 holds every number exactly, and sums are rounded finer than before;
              float64 → float32 rounds each weight once.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnx_ir.passes import common

from deploy_kit.base.errors import InputError, SimplifyError
from deploy_kit.graph import edit, onnx_bounds
from deploy_kit.graph.adoption import interface
from deploy_kit.graph.adoption.refused import numpy_name, opset
from deploy_kit.graph.onnx_bounds import nodes_of
from deploy_kit.graph.passes import fold_constants

if TYPE_CHECKING:
    import onnx

_OPSET = 13  # Q/DQ with a scale for each channel begin here
# Activations of float16 are rounded to 11 bits and of bfloat16 to 8; seen on a DenseNet: 1e-3 and 1e-2.
_HALF = {TensorProto.FLOAT16: 2e-2, TensorProto.BFLOAT16: 1e-1, TensorProto.DOUBLE: 1e-4}
_QUANTIZING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})
_SPREAD = 2**28  # 1 GiB as float32
_TYPE_ATTRIBUTES = {"Cast": "to", "EyeLike": "dtype"}


def widen(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> float | None:
    """Make a graph whose input or output is another float type float32 throughout.

    Returns:
        How far the outputs may move, relative to the largest; None where the graph stays.
    """
    kinds = {proto.graph.input[0].type.tensor_type.elem_type, proto.graph.output[0].type.tensor_type.elem_type}
    found = sorted(kinds & set(_HALF), key=lambda kind: _HALF[kind])
    if not found:
        return None
    for tensor in onnx_bounds.tensors_of(proto):
        if tensor.data_type in _HALF:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            if not np.isfinite(wide).all():
                raise InputError(
                    f"{path}: weight '{tensor.name}' is not finite, or does not fit float32",
                    hint="the training diverged, or the file is damaged: export another checkpoint",
                )
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in nodes_of(proto.graph):
        for attribute in node.attribute:
            if attribute.name == _TYPE_ATTRIBUTES.get(node.op_type) and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    said = numpy_name(found[-1])
    keeps = "each weight rounded once" if found[-1] == TensorProto.DOUBLE else "which holds every weight exactly"
    compared = "" if runs(_HALF[found[-1]]) else f"; not compared: ONNX Runtime has no convolution in {said}"
    flag = {TensorProto.FLOAT16: "; quantize --fp16 narrows it", TensorProto.BFLOAT16: "; quantize --bf16 narrows it"}
    changes.append(f"{said} → float32 throughout, {keeps}{flag.get(found[-1], '')}{compared}")
    return _HALF[found[-1]]


def runs(tolerance: float | None) -> bool:
    """Return whether ONNX Runtime can compute the graph as it was: on CPUs it has none in float64 and bfloat16."""
    return tolerance in (None, _HALF[TensorProto.FLOAT16])


def feed_in_float32(proto: "onnx.ModelProto") -> None:
    """Put a Cast behind the input and in front of the output of a graph in another float type, to run it as it was."""
    source, result = proto.graph.input[0], proto.graph.output[0]
    for value, inner in ((source, f"{source.name}/as given"), (result, f"{result.name}/as given")):
        kind = value.type.tensor_type.elem_type
        if kind not in _HALF:
            continue
        for node in nodes_of(proto.graph):
            for names in (node.input, node.output):
                names[:] = [inner if name == value.name else name for name in names]
        if value is source:
            proto.graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], to=kind))
        else:
            proto.graph.node.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT))
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.graph.value_info[:]


def raise_opset(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Raise a graph to operator set 13 by ONNX's own converter.

    Raises:
        InputError: The converter does not know an operator.
    """
    version = opset(proto)
    if version >= _OPSET:
        return proto
    try:
        raised = version_converter.convert_version(proto, _OPSET)
    except RuntimeError as error:
        raise InputError(
            f"{path}: operator set {version} cannot be raised to {_OPSET}: {' '.join(str(error).split())[:300]}",
            hint=f"export it again with operator set {_OPSET} or higher, e.g. torch.onnx.export(…, opset_version=18)",
        ) from error
    del raised.metadata_props[:]
    raised.metadata_props.extend(proto.metadata_props)
    raised.producer_name, raised.producer_version = proto.producer_name, proto.producer_version
    raised.ir_version = max(proto.ir_version, 7)
    changes.append(f"operator set {version} → {_OPSET}")
    return interface.infer_anew(raised, path, [])


def spread_constants(proto: "onnx.ModelProto", changes: list[str]) -> None:
    """Write constants that a file states by their shape alone as weights, up to `_SPREAD` numbers in all."""
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    known |= {
        node.output[0]: node.attribute[0].t
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t")
    }
    left, spread = _SPREAD, []
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in known:
            continue
        shape = numpy_helper.to_array(known[node.input[0]]).astype(np.int64)
        value = numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1, np.float32)
        size = math.prod(int(side) for side in shape)
        if (shape < 0).any() or value.size != 1 or size > left:
            continue
        left -= size
        spread.append(node)
        filled = np.full(tuple(shape), value.reshape(()), value.dtype)
        proto.graph.initializer.append(numpy_helper.from_array(filled, node.output[0]))
    for node in spread:
        proto.graph.node.remove(node)
    if spread:
        changes.append(f"{len(spread)} constants that are stated by their shape written out")


def dequantize_weights(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Write out weights stored as integers where no activation is quantized: engines compute those in float."""
    operators = {node.op_type for node in nodes_of(proto.graph)}
    if "DequantizeLinear" not in operators or operators & _QUANTIZING:
        return proto
    model = ir.serde.deserialize_model(proto)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    n = 0
    for node in tuple(model.graph):
        if node.op_type == "DequantizeLinear" and all(value is None or edit.constant(value) for value in node.inputs):
            made = edit.initializer(model, f"{node.outputs[0].name}.float", _dequantized(node), ir.DataType.FLOAT)
            node.outputs[0].replace_all_uses_with(made)
            model.graph.remove(node, safe=True)
            n += 1
    if not n:
        return proto
    changes.append(
        f"{n} weights stored as integers are float32: no activation is quantized; quantize --int8 narrows both"
    )
    return interface.infer_anew(ir.serde.serialize_model(model), path, [])


def _dequantized(node: ir.Node) -> np.ndarray:
    """Compute s · (q − z) with one scale, one for each place of an axis, or one for each block of it."""
    stored, scale = (edit.array(value) for value in node.inputs[:2])
    zero = edit.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(scale.shape)
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if scale.ndim == 1 and stored.ndim > 1:
        shape = [1] * stored.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    if block:
        scale, zero = (one.repeat(block, axis).take(range(stored.shape[axis]), axis) for one in (scale, zero))
    return (stored.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)


def decide_conditions(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Replace each If whose condition follows from the input's size by the branch that is taken."""
    conditions, size = _conditions(proto), -1
    decided = proto
    # A branch that is taken gives shapes to what follows, which may fix the next condition.
    while _conditions(decided) and len(decided.graph.node) != size:
        size = len(decided.graph.node)
        model = ir.serde.deserialize_model(decided)
        try:
            fold_constants.apply(model)
        except SimplifyError as error:
            raise InputError(f"{path}: a constant cannot be computed: {error}", hint="export it again") from error
        decided = interface.infer_anew(ir.serde.serialize_model(model), path, [])
    if _conditions(decided) == conditions:
        return proto
    changes.append(f"{conditions - _conditions(decided)} If decided: the input's size fixes the condition")
    return decided


def _conditions(proto: "onnx.ModelProto") -> int:
    return sum(node.op_type == "If" for node in proto.graph.node)


def flatten_output(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """End a graph that gives N×C×1×1 with a Flatten, so that it gives N×C."""
    output = proto.graph.output[0]
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    if len(shape) < 3 or set(shape[2:]) != {1}:
        return proto
    inner = f"{output.name}/unflattened"
    for node in nodes_of(proto.graph):
        for names in (node.input, node.output):
            names[:] = [inner if name == output.name else name for name in names]
    proto.graph.node.append(helper.make_node("Flatten", [inner], [output.name], name=f"{output.name}/Flatten", axis=1))
    changes.append(f"output {output.name} {['N', *shape[1:]]} → {['N', shape[1]]} by a Flatten")
    return interface.infer_anew(proto, path, [])
