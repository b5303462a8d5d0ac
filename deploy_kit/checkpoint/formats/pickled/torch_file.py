"""What `torch.save` and `pickle.dump` write → inert values: zip since torch 1.6, legacy before, plain pickle.

Source of the layouts: torch/serialization.py, `_load` and `_legacy_load`, torch 2.13.
"""

import io
import os
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged
from deploy_kit.checkpoint.formats.pickled.calls import CALLS, INERT
from deploy_kit.checkpoint.formats.pickled.inert import Global, Rules, refuse
from deploy_kit.checkpoint.formats.pickled.rebuild import QUANTIZED, STORAGES, Storage
from deploy_kit.checkpoint.formats.pickled.unpickle import unpickle
from deploy_kit.checkpoint.formats.zip_archive import MAGIC, Archive, open_archive

_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number 0x1950a86a20f9469cfc6c, pickled
_PROTOCOL = 1001
_MAX_NESTED = 2
_READ = 1 << 24


def is_legacy(head: bytes) -> bool:
    """Say whether a file begins with the legacy format's magic number, whatever the pickle protocol."""
    return head[:1] == b"\x80" and _LEGACY_MAGIC in head[:24]


class Bounded:
    """A file of known size, read from front to back: never more than is there, however much is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        """Start where the file stands."""
        self._file = file
        at = file.tell()
        self.left = file.seek(0, os.SEEK_END) - at
        file.seek(at)

    def read(self, n: int, /) -> bytes:
        """Read at most `n` bytes."""
        data = self._file.read(min(n, self.left) if n >= 0 else self.left)
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        """Read one line."""
        line = self._file.readline()
        self.left -= len(line)
        return line

    def exactly(self, n: int) -> bytearray:
        """Read `n` bytes.

        Raises:
            CheckpointError: There are fewer.
        """
        if n > self.left:
            raise damaged(f"{n:,} more bytes were expected, {self.left:,} are there")
        result = bytearray()
        while len(result) < n:
            result += self.read(min(_READ, n - len(result)))
        return result


def read_zip(archive: Archive, budget: ReadLimits, pickle: str = "data.pkl", depth: int = 0) -> Any:
    """Read the pickle of an archive and the storages that it names.

    Args:
        archive: Holds ``<name>/data.pkl`` and ``<name>/data/<key>``.
        budget: Of the file.
        pickle: Which pickle.
        depth: How many checkpoints this one lies in.
    """
    home = next(name for name in archive.names if name.endswith(f"/{pickle}")).removesuffix(pickle)
    order = bytes(archive.read(f"{home}byteorder")) if f"{home}byteorder" in archive.names else b"little"
    _verify_order(order == b"little")
    rows: dict[str, Storage] = {}

    def storage(found: Any) -> Storage:
        kind, key, count = _persistent(found, 5)
        if key not in rows:
            rows[key] = kind.row(archive.read(f"{home}data/{key}"))
        return kind.verified(rows[key], key, count)

    source = Bounded(io.BytesIO(archive.read(home + pickle)))
    return unpickle(source, _rules(storage, budget, depth))


def read_legacy(file: BinaryIO, budget: ReadLimits, depth: int = 0) -> Any:
    """Read the five pickles of the format before torch 1.6, then the storages behind them."""
    source = Bounded(file)
    rows: dict[str, Storage] = {}

    def storage(found: Any) -> Any:
        if isinstance(found, tuple) and found[:1] == ("module",):
            return found[1]  # a class, with its source code behind it
        kind, key, count = _persistent(found, 6)
        if key not in rows:
            n_bytes = count * kind.dtype.itemsize
            if n_bytes > source.left:
                raise damaged(f"storage '{key}' claims {n_bytes:,} bytes, {source.left:,} are left")
            budget.take(n_bytes)
            rows[key] = kind.row(bytearray(n_bytes))
        row = kind.verified(rows[key], key, count)
        return _part(row, found[5])

    rules = _rules(storage, budget, depth)
    unpickle(source, rules)  # the magic number
    if unpickle(source, rules) != _PROTOCOL:
        raise damaged("its protocol is unknown")
    system = unpickle(source, rules)
    _verify_order(not isinstance(system, dict) or system.get("little_endian", True) is True)
    result = unpickle(source, rules)
    keys = unpickle(source, rules)
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise damaged("the list of its storages is missing")
    names = [str(key) for key in keys]
    if sorted(names) != sorted(rows):
        raise damaged("the storages behind its pickle are not those that it names")
    for name in names:
        _fill(rows[name], source, name)
    return result


def read_pickle(file: BinaryIO, budget: ReadLimits, depth: int = 0) -> Any:
    """Read a plain pickle, whose tensors are NumPy arrays or lie inside it as whole legacy files."""

    def storage(found: Any) -> Any:
        raise refuse("a persistent id")

    return unpickle(Bounded(file), _rules(storage, budget, depth))


def _rules(storage: Any, budget: ReadLimits, depth: int) -> Rules:
    def nested(data: bytes) -> Any:
        if depth >= _MAX_NESTED:
            raise CheckpointError("refused: checkpoints inside checkpoints inside checkpoints")
        file = io.BytesIO(data)
        if data.startswith(MAGIC):
            with open_archive(file, budget) as archive:
                return read_zip(archive, budget, depth=depth + 1)
        return read_legacy(file, budget, depth + 1)

    return Rules(calls=CALLS, inert=INERT, storage=storage, nested=nested, budget=budget)


@dataclass(frozen=True)
class _Kind:
    """What a storage holds."""

    dtype: torch.dtype
    quantized: str = ""

    def row(self, data: bytearray) -> Storage:
        whole = len(data) // self.dtype.itemsize * self.dtype.itemsize
        if whole != len(data):
            raise damaged(f"a storage of {len(data):,} bytes for {self.dtype}")
        numbers = torch.frombuffer(data, dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)
        return Storage(numbers, self.quantized)

    def verified(self, row: Storage, key: str, count: int) -> Storage:
        """Hold a claim of `count` numbers against the bytes that are there."""
        n_bytes = row.numbers.numel() * row.numbers.element_size()
        if count * self.dtype.itemsize != n_bytes:
            raise damaged(f"storage '{key}' claims {count * self.dtype.itemsize:,} bytes, it has {n_bytes:,}")
        if row.numbers.dtype == self.dtype and row.quantized == self.quantized:
            return row
        return Storage(row.numbers.view(self.dtype), self.quantized)


def _persistent(found: Any, length: int) -> tuple[_Kind, str, int]:
    """Take ('storage', type, key, location, count, …) apart."""
    if not (isinstance(found, tuple) and len(found) >= length and found[0] in ("storage", b"storage")):
        raise refuse("a persistent id")
    _, kind, key, _, count = found[:5]
    if not isinstance(kind, Global) or not isinstance(key, (str, int)) or type(count) is not int or count < 0:
        raise TypeError("a storage without a type, a key or a size")
    if kind.module not in ("torch", "torch.cuda", "torch.storage"):
        raise refuse(kind)
    if kind.name in QUANTIZED:
        name, dtype = QUANTIZED[kind.name]
        return _Kind(dtype, name), str(key), count
    if kind.name not in STORAGES:
        raise CheckpointError(f"holds a storage of an unknown type, '{kind}'")
    return _Kind(STORAGES[kind.name]), str(key), count


def _part(row: Storage, view: Any) -> Storage:
    """Give the part of a storage that a legacy file names: (its key, offset, count)."""
    if view is None:
        return row
    _, offset, count = view
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count <= row.numbers.numel():
        raise damaged("a part of a storage reaches beyond it")
    return Storage(row.numbers[offset : offset + count], row.quantized)


def _fill(row: Storage, source: Bounded, key: str) -> None:
    """Read a storage's numbers: their count as eight bytes, then they themselves."""
    count = int.from_bytes(source.exactly(8), "little")
    if count != row.numbers.numel():
        raise damaged(f"storage '{key}' has {count:,} numbers, {row.numbers.numel():,} were announced")
    if count:
        data = source.exactly(count * row.numbers.element_size())
        row.numbers.copy_(torch.frombuffer(data, dtype=row.numbers.dtype))


def _verify_order(little: bool) -> None:
    if not little or sys.byteorder != "little":
        raise CheckpointError(
            "its numbers are big-endian" if not little else "this machine is big-endian",
            hint="load it with torch and save it anew on a little-endian machine",
        )
