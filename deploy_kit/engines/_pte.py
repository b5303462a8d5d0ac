"""ExecuTorch's program files (``.pte``), read without its runtime: what they hold, and whether they are whole.

A program is a flatbuffer (executorch/schema/program.fbs), with segments behind it; a delegate of XNNPACK is a second
flatbuffer in one of them (executorch/backends/xnnpack/serialization/schema.fbs). The numbers below are places of fields
in these schemas, of ExecuTorch 1.5. Every read is held against the file's length.
"""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deploy_kit.base.errors import BuildError

XNNPACK = "XnnpackBackend"
T = TypeVar("T")
_LARGEST = 2**31 - 1  # bytes of a file: offsets of a flatbuffer have 32 bits
_HEADER = struct.Struct("<4sIQQQ")  # magic, length, size of the program, start and size of the segments
_TENSOR, _KERNEL_CALL, _FLOAT = 5, 1, 6  # members of the unions KernelTypes and InstructionArguments; ScalarType
_INLINE, _QUANTIZED = 0, 2
_DTYPES = {1: "fp32", 2: "fp16", 3: "int8", 4: "int8", 6: "int8", 8: "int4", 14: "bf16"}
# Member of XNodeUnion → operation, and the fields of its input and its weights.
_WEIGHTED = {2: ("Gemm", 0, 1), 7: ("Conv", 15, 16), 13: ("Conv", 15, 16), 39: ("ConvTranspose", 15, 16)}
_DEPTHWISE, _CONVERT = 13, 18
_OTHERS = {6: "Relu", 11: "Pool", 14: "Pool", 19: "Pool", 32: "Concat", 33: "Concat", 34: "Concat", 38: "Concat"}


@dataclass(frozen=True, kw_only=True)
class PteProgram:
    """What a program file holds.

    Attributes:
        shape: Shape of its one input, float32.
        n_delegates: Number of parts that XNNPACK computes.
        counts: Number of operations with weights in XNNPACK, by (operation, type); a convolution of one weight for each
            channel, which is what a BatchNormalization becomes, is a ``Norm``.
        inside: Number of operations in XNNPACK by operation.
        outside: Number of calls of ExecuTorch's own kernels by their names.
    """

    shape: tuple[int, ...]
    n_delegates: int
    counts: Counter[tuple[str, str]]
    inside: Counter[str]
    outside: Counter[str]


def read(path: Path) -> tuple[PteProgram, bytes]:
    """Read a program file, and return what it holds and its bytes.

    Raises:
        BuildError: It is missing, cut off, no program, has parts for another backend than XNNPACK, or is not a function
            of one float32 tensor.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.stat().st_size:,} bytes, a program has {_LARGEST:,} at most")
        data = path.read_bytes()
        return _parse(data), data
    except (OSError, ValueError, struct.error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise BuildError(f"{path}: no whole program of ExecuTorch: {said}") from error


class _Table:
    """A table of a flatbuffer: numbers, texts and tables by the place of their field."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._n_fields = (self._read("<H", self._fields) - 4) // 2

    def _read(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self._data) - struct.calcsize(form):
            raise ValueError("a part of it points outside of it")
        return int(struct.unpack_from(form, self._data, at)[0])

    def _place(self, field: int) -> int:
        """Return where a field's value is; 0 where the table has none."""
        shift = self._read("<H", self._fields + 4 + 2 * field) if field < self._n_fields else 0
        return self._at + shift if shift else 0

    def number(self, field: int, form: str = "<I") -> int:
        """Return a number; 0, the schemas' default, where there is none."""
        place = self._place(field)
        return self._read(form, place) if place else 0

    def table(self, field: int) -> "_Table":
        """Return a table.

        Raises:
            ValueError: There is none.
        """
        place = self._place(field)
        if not place:
            raise ValueError("a part of it is missing")
        return _Table(self._data, place + self._read("<I", place))

    def union(self, field: int) -> "tuple[int, _Table]":
        """Return which member of a union it is, and the member."""
        return self.number(field, "<B"), self.table(field + 1)

    def _vector(self, field: int, size: int) -> range:
        """Return where the items of a vector are."""
        place = self._place(field)
        if not place:
            return range(0)
        start = place + self._read("<I", place)
        end = start + 4 + size * self._read("<I", start)
        if end > len(self._data):
            raise ValueError("a part of it points outside of it")
        return range(start + 4, end, size)

    def numbers(self, field: int, form: str = "<i") -> list[int]:
        """Return a vector of numbers."""
        return [self._read(form, at) for at in self._vector(field, struct.calcsize(form))]

    def tables(self, field: int) -> "list[_Table]":
        """Return a vector of tables."""
        return [_Table(self._data, at + self._read("<I", at)) for at in self._vector(field, 4)]

    def text(self, field: int) -> str:
        """Return a text; empty where there is none."""
        place = self._vector(field, 1)
        return bytes(self._data[place.start : place.stop]).decode(errors="replace")

    def blob(self, field: int) -> memoryview:
        """Return a vector of bytes."""
        place = self._vector(field, 1)
        return self._data[place.start : place.stop]


def _root(data: memoryview, identifier: bytes) -> _Table:
    if bytes(data[4:8]) != identifier:
        raise ValueError(f"expected '{identifier.decode()}' at its fifth byte")
    return _Table(data, struct.unpack_from("<I", data)[0])


def _parse(data: bytes) -> PteProgram:
    view = memoryview(data)
    if data[4:8] != b"ET12":
        raise ValueError("expected 'ET12' at its fifth byte")
    magic, _, size, base, rest = _HEADER.unpack_from(data, 8)
    if magic != b"eh00":
        size, base, rest = len(data), len(data), 0
    if not size <= base or base + rest != len(data):
        raise ValueError(f"it states {max(size, base + rest):,} bytes and has {len(data):,}")
    program = _root(view[:size], b"ET12")
    plans = program.tables(1)
    if [plan.text(0) for plan in plans] != ["forward"]:
        raise ValueError("expected one method, 'forward'")
    (plan,) = plans
    inside, counts = Counter[str](), Counter[tuple[str, str]]()
    for delegate in plan.tables(7):
        if delegate.text(0) != XNNPACK:
            raise ValueError(f"a part of it is for '{delegate.text(0)}', and {XNNPACK} alone is run here")
        _count(_payload(program, delegate.table(1), view[base:]), inside, counts)
    operators = [f"{row.text(0)}.{row.text(1)}".rstrip(".") for row in plan.tables(6)]
    outside = Counter[str]()
    for chain in plan.tables(5):
        for member, call in (row.union(0) for row in chain.tables(2)):
            if member == _KERNEL_CALL:
                outside[_item(operators, call.number(0))] += 1
    return PteProgram(
        shape=_input(plan), n_delegates=len(plan.tables(7)), counts=counts, inside=inside, outside=outside
    )


def _input(plan: _Table) -> tuple[int, ...]:
    values, given = plan.tables(2), plan.numbers(3)
    if len(given) != 1 or len(plan.numbers(4)) != 1:
        raise ValueError(f"expected one input and one output, found {len(given)} and {len(plan.numbers(4))}")
    member, tensor = _item(values, given[0]).union(0)
    if member != _TENSOR or tensor.number(0, "<b") != _FLOAT:
        raise ValueError("expected an input of float32")
    return tuple(tensor.numbers(2))


def _payload(program: _Table, reference: _Table, segments: memoryview) -> memoryview:
    """Return the bytes that a delegate was given."""
    index = reference.number(1)
    if reference.number(0, "<b") == _INLINE:
        return _item(program.tables(3), index).blob(0)
    row = _item(program.tables(4), index)
    begin, size = row.number(0, "<Q"), row.number(1, "<Q")
    if begin + size > len(segments):
        raise ValueError("a segment of it points outside of it")
    return segments[begin : begin + size]


def _count(payload: memoryview, inside: Counter[str], counts: Counter[tuple[str, str]]) -> None:
    """Count the operations of one delegate."""
    if bytes(payload[4:8]) != b"XH00":
        raise ValueError("expected 'XH00' at the fifth byte of what XNNPACK is given")
    begin, size, constants = struct.unpack_from("<III", payload, 10)
    room = len(payload) - constants
    graph = _root(payload[begin : begin + size], b"XN01")
    for row in graph.tables(8):
        # Data that is kept under a name in the program has no offset here.
        if not row.text(2) and row.number(0, "<Q") + row.number(1, "<Q") > room:
            raise ValueError("weights of it point outside of it")
    dtypes = dict[int, str]()
    for member, value in (row.union(0) for row in graph.tables(2)):
        tensor = value.table(0) if member == _QUANTIZED else value
        dtypes[tensor.number(6)] = _DTYPES.get(tensor.number(0, "<h"), "other")
    for member, node in (row.union(0) for row in graph.tables(1)):
        if member in _WEIGHTED:
            kind, source, weights = _WEIGHTED[member]
            if member == _DEPTHWISE and node.number(4) == node.number(5) == 1:
                kind = "Norm"
            found = {dtypes.get(node.number(source), "other"), dtypes.get(node.number(weights), "other")}
            counts[kind, found.pop() if len(found) == 1 else "mixed"] += 1
            inside[kind] += 1
        else:
            inside["Convert" if member == _CONVERT else _OTHERS.get(member, "other")] += 1


def _item(items: Sequence[T], index: int) -> T:
    if not 0 <= index < len(items):
        raise ValueError("a part of it names what it does not have")
    return items[index]
