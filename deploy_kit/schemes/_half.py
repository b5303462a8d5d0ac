"""What FP16 and BF16 share: every float32 weight and activation becomes half, the input and output stay float32."""

from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit import graph
from deploy_kit.errors import QuantizeError

# ONNX allows bfloat16 in Conv and the pools from this operator set on.
_BF16_OPSET = 22


@dataclass(frozen=True, kw_only=True)
class Options:
    """Half precision has no options."""


def convert(source: Path, target: Path, dtype: ir.DataType) -> None:
    """Type a float32 graph as `dtype`, with a Cast at its input and one at each output.

    Raises:
        QuantizeError: A weight is too large for `dtype`, or a node needs a newer operator set and cannot have it.
    """
    model = graph.load(source)
    if dtype == ir.DataType.BFLOAT16 and graph.opset(model) < _BF16_OPSET:
        model = _raised(model, source)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for name, value in tuple(model.graph.initializers.items()):
        if value.dtype == ir.DataType.FLOAT:
            value.const_value = _narrowed(name, value, dtype, source)
    for node in model.graph:
        for result in node.outputs:
            if result.dtype == ir.DataType.FLOAT:
                result.dtype = dtype
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(dtype))
    _cast_inputs(model, dtype)
    _cast_outputs(model, dtype)
    graph.save(model, target)


def _raised(model: ir.Model, source: Path) -> ir.Model:
    metadata = dict(model.metadata_props)
    try:
        proto = onnx.version_converter.convert_version(ir.serde.serialize_model(model), _BF16_OPSET)
    except RuntimeError as error:
        raise QuantizeError(
            f"{source}: cannot be raised to operator set {_BF16_OPSET}, which bfloat16 needs: {error}"
        ) from error
    raised = ir.serde.deserialize_model(proto)
    raised.metadata_props.update(metadata)
    return raised


def _narrowed(name: str, value: ir.Value, dtype: ir.DataType, source: Path) -> ir.TensorProtocol:
    assert value.const_value is not None
    wide = value.const_value.numpy()
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype.numpy())
    if not np.isfinite(narrow.astype(np.float32)).all():
        largest = float(np.abs(wide).max())
        limit = float(ml_dtypes.finfo(dtype.numpy()).max)  # type: ignore[no-untyped-call]  # no types
        raise QuantizeError(
            f"{source}: weight '{name}' reaches {largest:g}, and {dtype.name.lower()} ends at {limit:g}",
            hint="use --bf16, which has float32's range" if dtype == ir.DataType.FLOAT16 else "keep this graph in fp32",
        )
    value.dtype = dtype
    return ir.Tensor(narrow, dtype=dtype, name=name)


def _cast_inputs(model: ir.Model, dtype: ir.DataType) -> None:
    for value in model.graph.inputs:
        if value.dtype != ir.DataType.FLOAT:
            continue
        users = tuple(value.uses())
        cast = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{value.name}.cast")
        narrow = cast.outputs[0]
        narrow.name, narrow.dtype, narrow.shape = f"{value.name}.narrow", dtype, value.shape
        model.graph.insert_before(model.graph[0], cast)
        for node, index in users:
            node.replace_input_with(index, narrow)


def _cast_outputs(model: ir.Model, dtype: ir.DataType) -> None:
    for index, value in enumerate(model.graph.outputs):
        if value.dtype != dtype:
            continue
        name = value.name
        value.name = f"{name}.narrow"
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast")
        wide = cast.outputs[0]
        wide.name, wide.dtype, wide.shape = name, ir.DataType.FLOAT, value.shape
        model.graph.append(cast)
        model.graph.outputs[index] = wide
