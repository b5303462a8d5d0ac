"""ONNX files from elsewhere before native code works on them: their first bytes, messages, functions, tensors.

A file of 2 kB can ask for any amount of work: functions that call each other twice double at each level, empty messages
take two bytes each and a hundred in memory, and four bytes claim a tensor of 2^60 numbers.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit.base.errors import InputError

if TYPE_CHECKING:
    import onnx

_MAX_FIELDS = 2_000_000  # as many empty messages take 200 MB in memory
_TEXT = "text"
_MAX_NODES = 200_000  # after inlining
_MAX_BYTES = 2**31 - 1  # one protobuf message ends here, also after inlining
_MAX_CALLS = 64  # functions within functions: native code recurses
_MAX_ELEMENTS = 2**31 - 1  # of one tensor: 8 GiB of float32
_HINT = "this is no file of a network that an exporter writes: export it again from its source"

# Of one element as raw data, in bits.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
         17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
_TYPED = {1: "float_data", 6: "int32_data", 7: "int64_data", 8: "string_data", 11: "double_data", 13: "uint64_data"}


def is_onnx(path: Path) -> bool:
    """Return whether a file starts as an ONNX model does: with field 1 of its protobuf, the IR version.

    TensorFlow's saved models start likewise, with their version, 1.
    """
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x08 and 2 <= head[1] < 0x80


def verify_messages(data: bytes, path: Path) -> None:
    """Count the fields of all messages in an ONNX file without building them, and read its texts.

    Bytes that are no protobuf are left to the parser, which says so.

    Raises:
        InputError: There are more fields than an ONNX file of a network has, or a text is not UTF-8: the parser gives
            such a name as bytes, which is no name for anything else.
    """
    from onnx import onnx_ml_pb2

    fields, pending = 0, [(0, len(data), onnx_ml_pb2.ModelProto.DESCRIPTOR)]
    while pending:
        at, end, message = pending.pop()
        inner = _inner(message)
        while at < end:
            fields += 1
            if fields > _MAX_FIELDS:
                raise InputError(f"{path}: more than {_MAX_FIELDS:,} fields in its messages", hint=_HINT)
            try:
                key, at = _varint(data, at)
                wire = key & 7
                if wire == 2:
                    size, at = _varint(data, at)
                    kind = inner.get(key >> 3)
                    if kind is _TEXT:
                        _verify_text(data[at : at + size], path)
                    elif kind is not None and size:
                        pending.append((at, min(at + size, end), kind))
                    at += size
                elif wire == 0:
                    _, at = _varint(data, at)
                elif wire in (1, 5):
                    at += 8 if wire == 1 else 4
                else:
                    return
            except IndexError:
                return


def _verify_text(text: bytes, path: Path) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: a name in it is not UTF-8, as ONNX asks for: {text[:40]!r}",
            hint="rename it where the model is made, and export it again",
        ) from error


@functools.cache
def _inner(message: Any) -> Mapping[int, Any]:
    """Return the kinds of the messages within a message and where its texts are, by field number."""
    return {
        field.number: field.message_type or _TEXT
        for field in message.fields
        if field.message_type is not None or field.type == field.TYPE_STRING
    }


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def verify_model(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse a model that would grow beyond every network's size, or whose tensors are not what they claim.

    Raises:
        InputError: Two versions of one operator set; functions that call themselves, grow without end when they are
            inlined, or are called as ONNX's operators are; a tensor whose data are not of its shape; data in another
            file that is missing, too short or outside of the model's folder.
    """
    _verify_opsets(proto, path)
    _verify_functions(proto, path)
    for tensor in tensors_of(proto):
        _verify_tensor(tensor, path)


def verify_values(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse a graph with a value, as its shapes were inferred, that no machine holds.

    Raises:
        InputError: A value has more elements than fit.
    """
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        size = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0)
        if size > _MAX_ELEMENTS:
            raise InputError(
                f"{path}: '{value.name}' would hold {size:.3g} numbers, at most {_MAX_ELEMENTS:.3g} are possible",
                hint=_HINT,
            )


def nodes_of(graph: "onnx.GraphProto") -> "Iterator[onnx.NodeProto]":
    """Iterate over the nodes of a graph and of the graphs within them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in _graphs_of(attribute):
                yield from nodes_of(inner)


def tensors_of(proto: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
    """Iterate over every tensor in a model: initializers and attributes, of graphs within graphs and functions too."""
    yield from _tensors_of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of_graph(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: "onnx.NodeProto") -> "Iterator[onnx.TensorProto]":
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in _graphs_of(attribute):
            yield from _tensors_of_graph(graph)


def _graphs_of(attribute: "onnx.AttributeProto") -> "Iterator[onnx.GraphProto]":
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _verify_opsets(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse a file that states two versions of one operator set: what computes it takes either."""
    known: dict[str, int] = {}
    for entry in proto.opset_import:
        if known.setdefault(entry.domain, entry.version) != entry.version:
            raise InputError(
                f"{path}: states two versions of one operator set, {known[entry.domain]} and {entry.version}: some "
                "runtimes take one, some the other",
                hint="export it again",
            )


def _verify_functions(proto: "onnx.ModelProto", path: Path) -> None:
    """Work out what the functions of a model come to when they are inlined: each body once, however often called."""
    from onnx import defs

    own = next((one.name for one in proto.functions if one.domain in ("", "ai.onnx") and defs.has(one.name)), None)
    if own is not None:
        raise InputError(
            f"{path}: its function '{own}' has the name of an ONNX operator: some runtimes take one, some the other",
            hint="give the function a domain of its own where the model is made, and export it again",
        )
    bodies = {(one.domain, one.name, getattr(one, "overload", "")): one for one in proto.functions}
    known: dict[tuple[str, str, str], tuple[int, int, int]] = {}

    def cost(nodes: Any, depth: int) -> tuple[int, int, int]:
        """Return nodes, bytes and levels of calls."""
        if depth > _MAX_CALLS:
            raise InputError(f"{path}: functions call each other more than {_MAX_CALLS} deep", hint=_HINT)
        total, size, height = 0, 0, 0
        for node in nodes:
            total, size = total + 1, size + node.ByteSize()
            key = (node.domain, node.op_type, getattr(node, "overload", ""))
            if key in bodies:
                if key not in known:
                    known[key] = cost(bodies[key].node, depth + 1)
                parts = [known[key]]
            else:
                parts = [cost(graph.node, depth) for attribute in node.attribute for graph in _graphs_of(attribute)]
            for more, larger, levels in parts:
                total, size, height = total + more, size + larger, max(height, levels + 1)
        if depth + height > _MAX_CALLS:
            raise InputError(f"{path}: functions call each other more than {_MAX_CALLS} deep", hint=_HINT)
        return total, size, height

    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        total, size, _ = cost(nodes, 0)
        if total > _MAX_NODES or size > _MAX_BYTES:
            raise InputError(
                f"{path}: {total:.3g} nodes of {size / 2**20:.3g} MiB once its functions are inlined, "
                f"at most {_MAX_NODES:,} nodes of {_MAX_BYTES >> 20} MiB are read",
                hint=_HINT,
            )


def _verify_tensor(tensor: "onnx.TensorProto", path: Path) -> None:
    """Hold a tensor's data against its shape."""
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"{path}: tensor '{tensor.name}' has the shape {list(tensor.dims)}", hint=_HINT)
    elements, bits = math.prod(tensor.dims), _BITS.get(tensor.data_type, 0)
    expected = -(-elements * bits // 8)
    if tensor.data_location == tensor.EXTERNAL:
        _verify_external(tensor, expected, path)
    elif tensor.HasField("raw_data"):
        _expect_data(tensor, len(tensor.raw_data), expected, "bytes", path)
    elif tensor.data_type in _TYPED:
        _expect_data(tensor, len(getattr(tensor, _TYPED[tensor.data_type])), elements, "numbers", path)
    elif bits >= 8 and elements > max(len(tensor.int32_data), len(tensor.uint64_data), len(tensor.float_data)):
        _expect_data(tensor, len(tensor.int32_data), elements, "numbers", path)


def _expect_data(tensor: "onnx.TensorProto", found: int, expected: int, unit: str, path: Path) -> None:
    if found != expected:
        raise InputError(
            f"{path}: tensor '{tensor.name}' of shape {list(tensor.dims)} needs {expected:,} {unit}, the file has "
            f"{found:,}",
            hint="the file is damaged: export it again",
        )


def _verify_external(tensor: "onnx.TensorProto", expected: int, path: Path) -> None:
    """Hold what a tensor says of its data file against that file; links and parent folders lead nowhere else."""
    file = external_file(tensor, path)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not file.is_file():
        raise InputError(
            f"{path}: the data of tensor '{tensor.name}' lie in '{file.name}', which is not beside it",
            hint=f"an exporter wrote both files: put '{file.name}' into {path.parent}",
        )
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or file.stat().st_size - offset)
    except ValueError as error:
        raise InputError(f"{path}: tensor '{tensor.name}': {error}", hint=_HINT) from error
    if offset < 0 or offset + length > file.stat().st_size or (expected and length != expected):
        raise InputError(
            f"{path}: tensor '{tensor.name}' needs {expected:,} bytes from byte {offset:,} of '{file.name}', which has "
            f"{file.stat().st_size:,}, and the model states {length:,}",
            hint=f"copy '{file.name}' again, it belongs to another export or was cut off",
        )


def external_file(tensor: "onnx.TensorProto", path: Path) -> Path:
    """Return the file with a tensor's data.

    Raises:
        InputError: It is outside of the model's folder.
    """
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    try:
        inside = bool(location) and (folder / location).resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a zero byte
        inside = False
    if not inside:
        raise InputError(
            f"{path}: the data of tensor '{tensor.name}' lie outside of its folder, in {location!r}",
            hint="export it again with its data file in the same folder, or as one file: "
            "onnx.save(model, path, save_as_external_data=False)",
        )
    return folder / location
