"""What FP16 and BF16 share: float32 weights and activations are converted; input and output stay float32.

With images, ranges are recorded first: a node that reads or computes an activation beyond the range of the half type,
or one so small that it would lose digits, stays in float32 and is named in the file's metadata, with the ranges.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.ranges import observe_activations
from deploy_kit.quantization.schemes import KEPT_KEY, Calibration

# ONNX allows bfloat16 in Conv and the pools from this operator set on.
_BF16_OPSET = 22
QDQ_OPSET = 19
"""The first operator set whose Q/DQ take half precision."""

_NEEDS = {_BF16_OPSET: "bfloat16", QDQ_OPSET: "Q/DQ in half precision"}
_OBSERVED_IMAGES = 64  # extremes of a range of 30 powers of two need no more
_HEADROOM = 2.0  # further images reach further; at the end of the range a factor of two is one of many exponents


@dataclass(frozen=True, kw_only=True)
class HalfOptions:
    """Options of a recipe's variant.

    Attributes:
        passes: Graph passes before the types change, for a target that prefers them (`recipe.targets`).
    """

    passes: tuple[str, ...] = ()


def convert(
    source: Path, target: Path, dtype: ir.DataType, options: HalfOptions, calibration: Calibration | None
) -> None:
    """Convert a float32 graph to `dtype`, with a Cast wherever float32 and `dtype` meet.

    Raises:
        QuantizeError: A weight is too large for `dtype`, or the graph cannot be raised to the operator set it needs.
        UnknownNameError: A pass does not exist.
    """
    model = onnx_file.load(source)
    passes.apply_passes(model, options.passes)
    if dtype == ir.DataType.BFLOAT16:
        model = raised(model, _BF16_OPSET, source)
    narrow(model, dtype, calibration, source)
    onnx_file.save(model, target)


def narrow(model: ir.Model, dtype: ir.DataType, calibration: Calibration | None, source: Path) -> None:
    """Convert a graph to `dtype` in place; Q/DQ pairs stay, their scales and results become `dtype`, too.

    Raises:
        InputError: A node holds a graph of its own.
        QuantizeError: A weight is too large for `dtype`; names `source`.
    """
    onnx_file.expect_flat(model, source)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    reach = _reach(model, calibration)
    wide = _out_of_range(reach, dtype)
    kept = {node for value in wide for node in (value.producer(), *value.consumers()) if node is not None}
    if kept:
        model.metadata_props[KEPT_KEY] = json.dumps(sorted(node.name or str(node.outputs[0].name) for node in kept))
    if reach:
        largest = {str(value.name): float(f"{top:.4g}") for value, top in reach.items()}
        model.metadata_props[onnx_file.RANGES_KEY] = json.dumps(largest)
    _retype(model, dtype, kept)
    _narrow_weights(model, dtype, kept, source)
    _cast(model, dtype, kept)
    _cast_outputs(model, dtype)


def _reach(model: ir.Model, calibration: Calibration | None) -> dict[ir.Value, float]:
    """Observe the largest magnitude of each activation on the calibration images; nothing where there are none."""
    if calibration is None:
        return {}
    values = [v for node in model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT and _rank(v) >= 2]
    size = calibration.n_images // calibration.n_batches
    n_batches = min(calibration.n_batches, -(-_OBSERVED_IMAGES // size))
    batches = itertools.islice(calibration.batches(), n_batches)
    channels, _ = observe_activations(ir.serde.serialize_model(model), [str(value.name) for value in values], batches)
    calibration.context.note("recorded ranges", f"largest magnitudes on {n_batches * size} images")
    ranges = ((value, channels[str(value.name)]) for value in values)
    return {value: float(max(abs(seen.low).max(), seen.high.max())) for value, seen in ranges}


def _out_of_range(reach: dict[ir.Value, float], dtype: ir.DataType) -> tuple[ir.Value, ...]:
    """Find the activations that `dtype` cannot hold."""
    numbers = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]  # no types
    largest, smallest = float(numbers.max), float(numbers.smallest_normal)
    return tuple(value for value, top in reach.items() if top * _HEADROOM > largest or 0 < top < smallest)


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _retype(model: ir.Model, dtype: ir.DataType, kept: set[ir.Node]) -> None:
    for node in model.graph:
        if node in kept:
            continue
        for result in node.outputs:
            if result.dtype == ir.DataType.FLOAT:
                result.dtype = dtype
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(dtype))


def _narrow_weights(model: ir.Model, dtype: ir.DataType, kept: set[ir.Node], source: Path) -> None:
    """Convert every float32 constant; one that a node in float32 reads, too, is stored in both types."""
    for name, value in tuple(model.graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT:
            continue
        users = [use for use in value.uses() if use.node not in kept]
        if len(users) == len(value.uses()):
            value.const_value = _narrowed(name, value, dtype, source)
            value.dtype = dtype
        elif users:
            tensor = _narrowed(name, value, dtype, source)
            narrow = ir.Value(name=f"{name}.narrow", const_value=tensor, type=ir.TensorType(dtype), shape=value.shape)
            model.graph.register_initializer(narrow)
            for node, index in users:
                node.replace_input_with(index, narrow)


def _cast(model: ir.Model, dtype: ir.DataType, kept: set[ir.Node]) -> None:
    """Put a Cast before every node that reads an activation of the other type."""
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in tuple(model.graph):
        needed, other = (ir.DataType.FLOAT, dtype) if node in kept else (dtype, ir.DataType.FLOAT)
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is not None or value.dtype != other or node.op_type == "Cast":
                continue
            if (value, needed) not in casts:
                suffix = "narrow" if needed == dtype else "wide"
                cast = ir.node("Cast", [value], {"to": int(needed)}, name=f"{value.name}.cast.{suffix}")
                result = cast.outputs[0]
                result.name, result.dtype, result.shape = f"{value.name}.{suffix}", needed, value.shape
                model.graph.insert_before(node, cast)
                casts[value, needed] = result
            node.replace_input_with(index, casts[value, needed])


def raised(model: ir.Model, opset: int, source: Path) -> ir.Model:
    """Return a graph in this operator set or a higher one.

    Raises:
        QuantizeError: The graph cannot be raised; names `source`.
    """
    if onnx_file.opset(model) >= opset:
        return model
    metadata = dict(model.metadata_props)
    try:
        proto = onnx.version_converter.convert_version(ir.serde.serialize_model(model), opset)
    except RuntimeError as error:
        raise QuantizeError(
            f"{source}: cannot be raised to operator set {opset}, which {_NEEDS[opset]} needs: {error}"
        ) from error
    new = ir.serde.deserialize_model(proto)
    new.metadata_props.update(metadata)
    return new


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
    return ir.Tensor(narrow, dtype=dtype, name=name)


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
