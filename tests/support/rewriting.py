"""What every rewrite owes, checked at once: the values, the recorded shapes, a sound order, and no second find."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import tiny_graphs
from onnx import numpy_helper

from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file
from deploy_kit.graph.passes import Outcome

WORDS = {np.float16: "float16", np.float32: "float", np.float64: "double"}
_ROUNDING = 2e-6  # ONNX Runtime sums in float32: some twenty roundings of 2^-24, in another order


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """What a pass did to a graph, and how far it moved the outputs.

    Attributes:
        outcome: As the pass reports it.
        operators: What stands in the graph now, in order.
        difference: Largest over the outputs, in float64, relative to the largest |output|.
    """

    outcome: Outcome
    operators: list[str]
    difference: float


def rewrite(which: ModuleType, model: ir.Model, *inputs: np.ndarray) -> Rewrite:
    """Apply a pass and hold the graph to everything but the size of the difference, which is the caller's to judge."""
    outputs = onnx_file.specs(tuple(model.graph.outputs))
    before, native = evaluate(model, *inputs), by_onnxruntime(model, *inputs)
    size = onnx_file.nodes(model), onnx_file.macs(model)

    outcome = which.apply(model)

    again = tiny_graphs.reread(model)
    assert onnx_file.specs(tuple(again.graph.outputs)) == outputs
    assert onnx_file.nodes(again) <= size[0]
    assert onnx_file.macs(again) <= size[1]
    verify_shapes(again, *inputs)
    operators = tiny_graphs.operators(model)
    assert which.apply(again).fired == 0
    assert tiny_graphs.operators(again) == operators
    found = differences(before, evaluate(again, *inputs))
    _near(native, by_onnxruntime(again, *inputs))
    return Rewrite(outcome=outcome, operators=operators, difference=max(found))


def differences(before: list[np.ndarray], after: list[np.ndarray]) -> list[float]:
    """Compare outputs pair by pair, relative to the largest |value| of each."""
    return [metrics.relative_difference(*pair) for pair in zip(before, after, strict=True)]


def by_onnxruntime(model: ir.Model, *inputs: np.ndarray) -> list[np.ndarray] | None:
    """Run a float32 graph node by node in ONNX Runtime; None for other types, which its CPU does not convolve."""
    if model.graph.inputs[0].dtype != ir.DataType.FLOAT:
        return None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.astype(np.float32) for x in inputs), strict=True)))


def verify_shapes(model: ir.Model, *inputs: np.ndarray) -> None:
    """Compare what the graph records of each value with strict inference from the inputs, and with the value itself."""
    proto = ir.serde.serialize_model(model)
    made = {name for node in proto.graph.node for name in node.output} - {""}
    recorded = {v.name: v for v in (*proto.graph.value_info, *proto.graph.output) if v.name in made}
    inferred = _inferred(proto)
    assert recorded.keys() == made
    for name, value in recorded.items():
        assert value.type.tensor_type.elem_type == inferred[name].type.tensor_type.elem_type, name
        assert _agree(_dims(value), _dims(inferred[name])), (name, _dims(value), _dims(inferred[name]))
    for name, array in _values(proto, recorded, inputs).items():
        assert _agree(_dims(recorded[name]), array.shape), (name, _dims(recorded[name]), array.shape)


def typed(text: str, dtype: type, opset: int = 18, **weights: np.ndarray) -> ir.Model:
    """Read a graph in ONNX's text form, its `float` and its weights of another type."""
    text = text.replace("float[", f"{WORDS[dtype]}[")
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    for name, value in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(dtype), name))
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def evaluate(model: ir.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    """Compute a graph of any float type in float64 with ONNX's reference evaluator.

    Before operator set 14 that evaluator lets every BatchNormalization take the statistics of the batch; those of an
    inference have not changed since.
    """
    proto = ir.serde.serialize_model(model)
    (opset,) = (entry for entry in proto.opset_import if not entry.domain)
    opset.version = max(opset.version, 14)
    return tiny_graphs.evaluate(ir.serde.deserialize_model(_widened(proto)), *inputs)


def _widened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Widen every float16 of a graph to float32, exactly."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    for tensor in proto.graph.initializer:
        if tensor.data_type == half:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def inferred(model: ir.Model) -> ir.Model:
    """Give the graph with the shapes and types that follow strictly from its inputs."""
    proto = onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model), check_type=True, strict_mode=True)
    return ir.serde.deserialize_model(proto)


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    """Copy the initializers, to compare them later."""
    return {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}


def _near(before: list[np.ndarray] | None, after: list[np.ndarray] | None) -> None:
    if before is not None and after is not None:
        assert max(differences(before, after)) <= _ROUNDING


def _inferred(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Infer all shapes from those of the inputs alone."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    bare = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    return {value.name: value for value in (*bare.graph.value_info, *bare.graph.output)}


def _values(
    proto: onnx.ModelProto, recorded: dict[str, onnx.ValueInfoProto], inputs: tuple[np.ndarray, ...]
) -> dict[str, np.ndarray]:
    """Compute every value of the graph, by name; in ONNX Runtime if it can, which knows the shapes of all pools."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    del whole.graph.output[:]
    whole.graph.output.extend(recorded.values())
    model = ir.serde.deserialize_model(whole)
    found = by_onnxruntime(model, *inputs)
    return dict(zip(recorded, found if found is not None else evaluate(model, *inputs), strict=True))


def _dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)


def _agree(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two shapes have the same rank and no axis on which both are known and differ."""
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))
