"""ONNX files: read and write them whole; their tensors, multiply-accumulates, precision and metadata.

Does not change a graph; `graph.passes` and `quantization.schemes` do.
"""

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from deploy_kit.base.errors import InputError, RequestError, StageError, no_such_file
from deploy_kit.base.lazy import need
from deploy_kit.base.text_files import unique_keys
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.graph import onnx_bounds
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BareInput, Precision, Preprocess, TensorSpec

if TYPE_CHECKING:
    import onnx

PREPROCESS_KEY, CLASSES_KEY = "deploykit.preprocess", "deploykit.classes"

RANGES_KEY = "deploykit.ranges"
"""Metadata of a half-precision file: JSON object, activation → largest magnitude observed on the calibration images."""

SLIMMED_KEY = "deploykit.slimmed"
"""Metadata of a slimmed file: JSON object with `macs_before`, `macs_after`, and `channels`, layer → [before, after]."""

PAIR = ("QuantizeLinear", "DequantizeLinear")
"""Operators of a Q/DQ pair."""

_DTYPES: dict[ir.DataType, Precision] = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}
_QUANTIZERS = frozenset({*PAIR, "QLinearConv", "DynamicQuantizeLinear"})
_METADATA_CURE = "remove the entry, or export again"
_WITHOUT_WEIGHTS = 4  # the first IR version whose inputs need not list the weights


def load(path: Path) -> ir.Model:
    """Load an ONNX file, with the shapes that follow from its inputs.

    Raises:
        InputError: Missing, or not a whole ONNX file.
    """
    proto = read(path)
    with _translated(path):
        inferred = need("onnx", by="reading ONNX files").shape_inference.infer_shapes(proto)
        onnx_bounds.verify_values(inferred, path)
        return ir.serde.deserialize_model(inferred)


def read(path: Path) -> "onnx.ModelProto":
    """Read an ONNX file whole, with its data files, as it stands.

    Raises:
        InputError: Missing, not a whole ONNX file, or one that grows without bounds.
    """
    onnx = need("onnx", by="reading ONNX files")
    if not path.is_file():
        raise no_such_file(path)
    with _translated(path):
        proto = _parsed(path)
        for entry in (*proto.opset_import, *onnx_bounds.nodes_of(proto.graph)):
            entry.domain = "" if entry.domain == "ai.onnx" else entry.domain  # two names of ONNX's own operators
        newest = max([entry.version for entry in proto.opset_import if entry.domain == ""], default=0)
        if newest > onnx.defs.onnx_opset_version():
            raise InputError(
                f"{path}: operator set {newest}, and onnx {onnx.__version__} here knows them up to "
                f"{onnx.defs.onnx_opset_version()}",
                hint="export it again for an older one, e.g. torch.onnx.export(…, opset_version=18)",
            )
        onnx_bounds.verify_model(proto, path)
        onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        stated = proto.ir_version
        # Neither an IR version from the future nor one that lists weights as inputs is a fault of the graph, and the
        # shapes of its ends follow from its operators.
        ends = [end.type.tensor_type for end in (*proto.graph.input, *proto.graph.output) if _lacks_shape(end)]
        proto.ir_version = min(max(stated, _WITHOUT_WEIGHTS), onnx.IR_VERSION)
        for kind in ends:
            kind.shape.SetInParent()
        onnx.checker.check_model(proto)
        for kind in ends:
            kind.ClearField("shape")
        proto.ir_version = stated
        return proto


def _lacks_shape(value: "onnx.ValueInfoProto") -> bool:
    return value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape")


def _parsed(path: Path) -> "onnx.ModelProto":
    data = path.read_bytes()
    onnx_bounds.verify_messages(data, path)
    proto: onnx.ModelProto = need("onnx", by="reading ONNX files").load_model_from_string(data)
    return proto


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what readers raise into errors that name the file."""
    onnx = need("onnx", by="reading ONNX files")
    try:
        yield
    except onnx.checker.ValidationError as error:
        raise InputError(f"{path}: not a valid ONNX model: {error}", hint="export it again") from error
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"{path}: its shapes do not fit together: {error}", hint="export it again") from error
    except need("google.protobuf.message", by="reading ONNX files").DecodeError as error:
        raise InputError(
            f"{path}: not a whole ONNX file: {error}", hint="it may be cut off: export it again"
        ) from error
    except (ValueError, TypeError, OSError, ir.serde.SerdeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as ONNX: {error}", hint="export it again") from error


def data_digests(path: Path) -> tuple[str, ...]:
    """Return the sha256 of each data file of an ONNX file, of what lies outside of the file itself.

    Raises:
        InputError: A data file is missing.
    """
    if not onnx_bounds.is_onnx(path):
        return ()
    with _translated(path):
        proto = _parsed(path)
        onnx_bounds.verify_model(proto, path)
        tensors = (tensor for tensor in onnx_bounds.tensors_of(proto) if tensor.data_location == tensor.EXTERNAL)
        return tuple(
            sha256_of(file) for file in sorted({onnx_bounds.external_file(tensor, path) for tensor in tensors})
        )


def save(model: ir.Model, path: Path) -> None:
    """Write one file, weights inside, and let ONNX's checker read it back.

    Raises:
        StageError: The graph is not valid ONNX.
    """
    onnx = need("onnx", by="writing ONNX files")
    ir.save(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(f"{path.name}: not a valid ONNX graph: {error}") from error


def digest(model: ir.Model) -> str:
    """Return the sha256 of what `save` writes, without writing it."""
    return hashlib.sha256(ir.serde.serialize_model(model).SerializeToString()).hexdigest()


def append_classes(path: Path, names: tuple[str, ...]) -> None:
    """Append the names of the classes to a file that records none; all bytes before stay as they are.

    A protobuf message that follows another one is merged into it (Protocol Buffers, Encoding: Last One Wins).
    """
    onnx = need("onnx", by="writing ONNX files")
    entry = onnx.StringStringEntryProto(key=CLASSES_KEY, value=codec.canonical_json(names))
    with path.open("ab") as file:
        file.write(onnx.ModelProto(metadata_props=[entry]).SerializeToString())


def reread(model: ir.Model) -> ir.Model:
    """Return the graph as a file would hold it, every shape inferred anew."""
    onnx = need("onnx", by="rewriting ONNX graphs")
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model)))


def opset(model: ir.Model) -> int:
    """Return the version of the default operator set."""
    return model.opset_imports.get("", 1)


def nodes(model: ir.Model) -> int:
    """Count the nodes of the main graph."""
    return len(model.graph)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Iterate over every node, of graphs within graphs and of functions, too."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def operators(model: ir.Model) -> Counter[str]:
    """Count the nodes by operator."""
    return Counter(node.op_type for node in model.graph)


def macs(model: ir.Model) -> int:
    """Count the multiply-accumulates of one image: convolutions and matrix products.

        convolution: out channels · out pixels · (in channels / groups) · kernel pixels;  matrix product: rows · columns

    Shapes must be known; nodes whose shapes are not count nothing.
    """
    return sum(macs_of(node) for node in model.graph)


def macs_of(node: ir.Node) -> int:
    """Count the multiply-accumulates of one node, as `macs` does."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2 or node.inputs[1] is None:
        return 0
    weight, out = node.inputs[1].shape, node.outputs[0].shape
    if weight is None or out is None:
        return 0
    dims = [int(d) for d in weight if isinstance(d, int)]
    product = 1
    for d in dims:
        product *= d
    if node.op_type == "Conv":
        for pixels in out[2:]:
            product *= pixels if isinstance(pixels, int) else 0
    return product


def parameters(model: ir.Model) -> int:
    """Count the numbers that are weights: floating-point ones, integers that are dequantized, constants by their shape.

    Scales and zero points are not counted, so that a quantized graph has the parameters of the float one.
    """
    grids, integers = set[str | None](), set[str | None]()
    for node in model.graph:
        inputs = [None if value is None else value.name for value in node.inputs]
        if node.op_type == "QLinearConv":  # x, its grid, weight, its grid, the output's grid, bias
            grids |= {*inputs[1:3], *inputs[4:8]}
            integers |= {inputs[3], *inputs[8:]}
        elif node.op_type in _QUANTIZERS:
            grids |= {*inputs[1:]}
            integers |= {inputs[0]} if node.op_type == "DequantizeLinear" else set()
    weights = (
        value.const_value
        for name, value in model.graph.initializers.items()
        if name not in grids and (value.dtype in _DTYPES or name in integers)
    )
    shapes = (
        node.inputs[0].const_value for node in model.graph if node.op_type == "ConstantOfShape" and node.inputs[0]
    )
    by_shape: int = sum(math.prod(shape.numpy().tolist()) for shape in shapes if shape is not None)
    return sum(int(weight.size) for weight in weights if weight is not None) + by_shape


def weight_bytes(model: ir.Model) -> int:
    """Add up what all constants of the main graph take in memory, scales and zero points among them."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def precision(model: ir.Model) -> Precision:
    """Return the precision that the graph carries: int8 where it quantizes, else the type of its first weight."""
    if any(node.op_type in _QUANTIZERS for node in model.graph):
        return "int8"
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.inputs[1] is not None:
            dtype = node.inputs[1].dtype
            return _DTYPES.get(dtype, "fp32") if dtype is not None else "fp32"
    return "fp32"


def inputs(model: ir.Model) -> tuple[ir.Value, ...]:
    """List the inputs that are fed: files of IR version 3 list their weights among the inputs, too."""
    return tuple(value for value in model.graph.inputs if value.name not in model.graph.initializers)


def specs(values: "list[ir.Value] | tuple[ir.Value, ...]") -> tuple[TensorSpec, ...]:
    """Describe inputs or outputs; a dynamic axis is its name."""
    return tuple(
        TensorSpec(
            name=value.name or "",
            dtype=value.dtype.name.lower() if value.dtype is not None else "unknown",
            shape=tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape or ()),
        )
        for value in values
    )


def preprocess(model: ir.Model) -> Preprocess | None:
    """Read the preprocessing embedded in the file; None where there is none.

    Raises:
        InputError: It cannot be read.
    """
    if not model.metadata_props.get(PREPROCESS_KEY):
        return None
    stated = metadata(model, PREPROCESS_KEY)
    try:
        return codec.from_json(Preprocess, stated, PREPROCESS_KEY)
    except RequestError as error:
        raise InputError(f"metadata {error}", hint=_METADATA_CURE) from error


def classes(model: ir.Model) -> tuple[str, ...]:
    """Read the names of the classes that the file records; empty where it records none.

    Raises:
        InputError: They cannot be read.
    """
    names = metadata(model, CLASSES_KEY) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"metadata '{CLASSES_KEY}': expected a list of names", hint=_METADATA_CURE)
    return tuple(names)


def ranges(model: ir.Model) -> dict[str, float]:
    """Read the largest magnitude of each activation that the file records; empty where it records none.

    Raises:
        InputError: The record cannot be read.
    """
    try:
        return {
            str(name): float(top) for name, top in (metadata(model, RANGES_KEY, "is no table of numbers") or {}).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"metadata '{RANGES_KEY}' is no table of numbers: {error}", hint=_METADATA_CURE) from error


def metadata(model: ir.Model, key: str, otherwise: str = "is not JSON") -> Any:
    """Read a metadata entry that holds JSON; None where there is none.

    Args:
        model: The graph.
        key: Key of the entry.
        otherwise: What the error says of an entry that holds something else.

    Raises:
        InputError: It is not JSON, or nested too deep.
    """
    text = model.metadata_props.get(key)
    try:
        return json.loads(text, object_pairs_hook=unique_keys) if text else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"metadata '{key}' {otherwise}: {error}", hint=_METADATA_CURE) from error


def embed(model: ir.Model, preprocessing: Preprocess | BareInput) -> None:
    """Embed the preprocessing, where it is known, so that the file can be used without its passport."""
    if isinstance(preprocessing, Preprocess):
        model.metadata_props[PREPROCESS_KEY] = codec.canonical_json(preprocessing)


def carry_mark(source: ir.Model, target: ir.Model) -> None:
    """Let a file made from a slimmed one say so, too."""
    if SLIMMED_KEY in source.metadata_props:
        target.metadata_props[SLIMMED_KEY] = source.metadata_props[SLIMMED_KEY]


def expect_input(model: ir.Model, preprocessing: Preprocess | BareInput, where: Path) -> None:
    """Refuse a graph whose input is not what the preprocessing makes, or that has several outputs.

    Raises:
        InputError: More than one input or output, another shape, or pixels in place of floats or the reverse.
    """
    given = specs(inputs(model))
    expected = preprocessing.shape
    pixels = isinstance(preprocessing, Preprocess) and preprocessing.input_pixels
    whole = len(given) == 1 and given[0].dtype == "uint8"
    if len(given) != 1 or given[0].shape[1:] != expected or whole != pixels:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}{' of uint8' * (spec.dtype == 'uint8')}" for spec in given)
        raise InputError(
            f"{where}: expected one input N×{'×'.join(map(str, expected))}{' of uint8' * pixels}, "
            f"found {shapes or 'none'}",
            hint=_layout_hint(given, expected) or "the preprocessing and the model do not belong together",
        )
    expect_output(model, where)


def _layout_hint(given: tuple[TensorSpec, ...], expected: tuple[int, ...]) -> str:
    """Return how to export a graph again whose channels come last; empty if they do not."""
    if len(given) != 1 or given[0].shape[1:] != (*expected[1:], expected[0]):
        return ""
    return f"its channels come last: export it channels first (tf2onnx: --inputs-as-nchw {given[0].name})"


def expect_output(model: ir.Model, where: Path) -> None:
    """Refuse a graph with several outputs: the stages behind the export measure one.

    Raises:
        InputError: More than one output.
    """
    names = [value.name or "" for value in model.graph.outputs]
    if len(names) > 1:
        raise InputError(
            f"{where}: expected one output, found {len(names)}: {', '.join(names)}",
            hint="export one head: deploykit export CHECKPOINT --head NAME",
        )


def expect_classes(model: ir.Model, where: Path) -> None:
    """Refuse a graph whose output is no row of logits: slimming refits to one row for each image.

    Raises:
        InputError: The output is not N×classes.
    """
    output = specs(tuple(model.graph.outputs))[0]
    if model.graph.outputs[0].shape is not None and len(output.shape) != 2:
        raise InputError(
            f"{where}: expected one output N×classes, found {output.name} {list(output.shape)}",
            hint="leave slimming out; every other step takes such an output",
        )


def unfit(model: ir.Model) -> tuple[str, ...]:
    """Return which later steps will refuse a graph: one that is typed already."""
    said, carried = list[str](), precision(model)
    if carried != "fp32":
        said.append(f"its weights are {carried}: it can be built, timed and checked; quantize takes the float32 file")
    return tuple(said)


def expect_flat(model: ir.Model, where: Path) -> None:
    """Refuse a graph with graphs inside (If, Loop, Scan): what they read from outside cannot be given another type.

    Raises:
        InputError: A node holds a graph.
    """
    for node in model.graph:
        if any(entry.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for entry in node.attributes.values()):
            raise InputError(
                f"{where}: {node.op_type} '{node.name}' holds a graph of its own, whose precision cannot be changed",
                hint="export the model without control flow, e.g. traced in eval mode",
            )
