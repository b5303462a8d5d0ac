"""The tiny DenseNet as ONNX, exported and simplified once a session, and graphs written in ONNX's own text form."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from stage_inputs import images_of
from tiny_densenet import tiny_recipe

from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.results import Simplified
from deploy_kit.stages import export, simplify
from deploy_kit.store import Store

_DOUBLE, _FLOAT = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT


def exported(exporter: str = "dynamo", dynamic: bool = False) -> tuple[Exported, bytes]:
    """Export the tiny DenseNet, once a session: its record, and the bytes of its ONNX file."""
    return _exported(exporter, dynamic)


@functools.cache
def _exported(exporter: str, dynamic: bool) -> tuple[Exported, bytes]:
    with tempfile.TemporaryDirectory() as folder, links.connect_device(links.LOCAL) as connection:
        recipe, store = tiny_recipe(Path(folder)), Store(Path(folder) / "store")
        part = recipe.export.model_copy(update={"exporter": exporter, "dynamic": dynamic})
        result, _ = export.run(
            recipe.source, part, Context(store=store, connection=connection), images=images_of(recipe.check.images)
        )
        return result, store.path(result.onnx).read_bytes()


@functools.cache
def simplified() -> tuple[Simplified, bytes]:
    """Simplify the exported graph with all passes, once a session: its record, and the bytes of its ONNX file."""
    with tempfile.TemporaryDirectory() as folder, links.connect_device(links.LOCAL) as connection:
        recipe, store = tiny_recipe(Path(folder)), Store(Path(folder) / "store")
        raw, data = exported()
        result, _ = simplify.run(
            place(store, raw.onnx, data), recipe.simplify, Context(store=store, connection=connection)
        )
        return result, store.path(result.onnx).read_bytes()


def exported_model(exporter: str = "dynamo", dynamic: bool = False) -> ir.Model:
    """Give the exported graph, a fresh one at each call."""
    return ir.serde.deserialize_model(onnx.load_from_string(exported(exporter, dynamic)[1]))


def simplified_model() -> ir.Model:
    """Give the simplified graph, a fresh one at each call."""
    return ir.serde.deserialize_model(onnx.load_from_string(simplified()[1]))


def reread(model: ir.Model) -> ir.Model:
    """Write and read a graph as a file would be, once ONNX's checker accepts it."""
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    return ir.serde.deserialize_model(proto)


def operators(model: ir.Model) -> list[str]:
    """List the operators of the nodes in order."""
    return [node.op_type for node in model.graph]


def place(store: Store, artifact: Artifact, data: bytes) -> Artifact:
    """Put the file of an artifact into a store, as if its stage had made it there."""
    path = store.root / artifact.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return artifact


def parse(text: str, opset: int = 18, **weights: np.ndarray) -> ir.Model:
    """Read a graph in ONNX's text form, with `weights` as float32 initializers and all shapes inferred."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    for name, value in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def evaluate(model: ir.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    """Compute a float32 graph in float64 with ONNX's reference evaluator; pixels stay uint8."""
    proto = _in_double(ir.serde.serialize_model(model))
    wide = (array if array.dtype == np.uint8 else array.astype(np.float64) for array in inputs)
    feeds = {value.name: array for value, array in zip(proto.graph.input, wide, strict=True)}
    return ReferenceEvaluator(proto).run(None, feeds)


def run_file(path: Path, x: np.ndarray) -> np.ndarray:
    """Compute the logits of a file image by image as it stands: bfloat16 in ONNX's evaluator, all else in ONNX Runtime.

    ONNX Runtime has no bfloat16 convolution on the CPU, ONNX's evaluator no DequantizeLinear before operator set 19.
    """
    proto = onnx.load(path)
    feed = proto.graph.input[0].name
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in proto.graph.initializer):
        evaluator = ReferenceEvaluator(proto)
        return np.concatenate([evaluator.run(None, {feed: image[None]})[0] for image in x])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {feed: image[None]})[0] for image in x])


def images(n: int = 1, seed: int = 0) -> np.ndarray:
    """Give `n` inputs of the tiny DenseNet: seeded, normalized, (n, 1, 16, 16) float32."""
    return np.random.default_rng(seed).standard_normal((n, 1, 16, 16), np.float32)


def _in_double(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Widen every float32 of a graph to float64, exactly."""
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == _FLOAT:
            value.type.tensor_type.elem_type = _DOUBLE
    for tensor in proto.graph.initializer:
        _widen(tensor)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = _DOUBLE
    return proto


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
