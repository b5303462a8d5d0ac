"""Operators and weights' dtypes of an ONNX file, read without the package ``onnx``: a device does not have it.

Field numbers are those of onnx.proto: ModelProto.graph = 7; GraphProto.node = 1, .initializer = 5; NodeProto.input = 1,
.op_type = 4; TensorProto.data_type = 2, .name = 8. The encoding is that of Protocol Buffers: a key (field number · 8 +
wire type) as a varint, then a varint (0), eight bytes (1), a length and as many bytes (2), or four bytes (5).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator: its type, and the names of its inputs."""

    op_type: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What an ONNX file computes, as far as it is needed here.

    Attributes:
        nodes: In the file's order.
        dtypes: Initializer → dtype, by the numbers of TensorProto.DataType.
    """

    nodes: tuple[Node, ...]
    dtypes: dict[str, int]


def read(path: Path) -> Graph:
    """Read a file that its writer has finished."""
    nodes, dtypes = list[Node](), dict[str, int]()
    for number, graph in _fields(memoryview(path.read_bytes())):
        if number == 7:
            for kind, value in _fields(_message(graph)):
                if kind == 1:
                    nodes.append(_node(_message(value)))
                elif kind == 5:
                    dtypes |= _tensor(_message(value))
    return Graph(nodes=tuple(nodes), dtypes=dtypes)


def _node(message: memoryview) -> Node:
    fields = list(_fields(message))
    inputs = tuple(_text(value) for number, value in fields if number == 1)
    return Node(op_type=next((_text(value) for number, value in fields if number == 4), ""), inputs=inputs)


def _tensor(message: memoryview) -> dict[str, int]:
    fields = dict(_fields(message))
    dtype = fields.get(2, 0)
    assert isinstance(dtype, int)
    return {_text(fields[8]): dtype}


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Give (field number, value) in order: a whole number, or the bytes of anything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = 8 if wire == _EIGHT else 4
        if wire == _BYTES:
            size, at = _varint(message, at)
        assert wire in (_EIGHT, _BYTES, _FOUR)
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read seven bits a byte, the lowest first; the eighth says that more follow. Give the number and its end."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(value: int | memoryview) -> memoryview:
    assert not isinstance(value, int)
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
