"""What `torch.save` and `pickle.dump` write → inert values: zip since torch 1.6, legacy before, plain pickle.

Source of the layouts: torch/serialization.py, `_load` and `_legacy_load`, torch 2.13.
"""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged
from deploy_kit.checkpoint.formats.pickled.allowed_calls import CALLS, MENTIONS
from deploy_kit.checkpoint.formats.pickled.inert_values import Global, Rules, refuse
from deploy_kit.checkpoint.formats.pickled.torch_tensors import QUANTIZED, STORAGES, Storage
from deploy_kit.checkpoint.formats.pickled.unpickle import unpickle
from deploy_kit.checkpoint.formats.zip_archive import Archive

_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number 0x1950a86a20f9469cfc6c, pickled
_PROTOCOL = 1001
_READ = 1 << 24


def is_legacy(head: bytes) -> bool:
    """Return whether a file begins with the legacy format's magic number, whatever the pickle protocol."""
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


def read_zip(archive: Archive, budget: ReadLimits, part: str = "data") -> Any:
    """Read the pickle of an archive and the storages that it names.

    Args:
        archive: Holds ``<name>/data.pkl`` and ``<name>/data/<key>``.
        part: ``constants`` for those of TorchScript's code, which are kept likewise.
        budget: Budget of the file.
    """
    home = next(name for name in archive.names if name.endswith(f"/{part}.pkl")).removesuffix(f"{part}.pkl")
    order = bytes(archive.read(f"{home}byteorder")) if f"{home}byteorder" in archive.names else b"little"
    _verify_order(order == b"little")
    rows: dict[str, Storage] = {}

    def storage(persistent_id: Any) -> Storage:
        kind, key, count = _storage_id(persistent_id, 5)
        if key not in rows:
            rows[key] = kind.row(archive.read(f"{home}{part}/{key}"))
        return kind.verified(rows[key], key, count)

    source = Bounded(io.BytesIO(archive.read(f"{home}{part}.pkl")))
    return unpickle(source, _rules(storage, budget))


def read_legacy(file: BinaryIO, budget: ReadLimits) -> Any:
    """Read the five pickles of the format before torch 1.6, then the storages behind them."""
    source = Bounded(file)
    rows: dict[str, Storage] = {}

    def storage(persistent_id: Any) -> Any:
        if isinstance(persistent_id, tuple) and persistent_id[:1] == ("module",):
            return persistent_id[1]  # a class, with its source code behind it
        kind, key, count = _storage_id(persistent_id, 6)
        if persistent_id[5] is not None:
            raise CheckpointError("holds a storage that is a part of another one", hint="save it anew with torch")
        if key not in rows:
            # The numbers come last: a claim is held against what is left of the file before anything is reserved.
            n_bytes = count * kind.dtype.itemsize
            if n_bytes > source.left:
                raise damaged(f"storage '{key}' claims {n_bytes:,} bytes, {source.left:,} are left")
            budget.take(n_bytes)
            rows[key] = kind.row(bytearray(n_bytes))
        return kind.verified(rows[key], key, count)

    rules = _rules(storage, budget)
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


def read_pickle(file: BinaryIO, budget: ReadLimits) -> Any:
    """Read a plain pickle, whose tensors are NumPy arrays or lie inside it as whole legacy files."""

    def storage(_: Any) -> Any:
        raise refuse("a persistent id")

    return unpickle(Bounded(file), _rules(storage, budget, nested=lambda data: read_legacy(io.BytesIO(data), budget)))


def _no_nested(_: bytes) -> Any:
    """Refuse a checkpoint in a torch file: torch keeps storages beside the pickle, and nesting has no end."""
    raise CheckpointError("refused: checkpoints inside checkpoints")


def _rules(storage: Callable[[Any], Any], budget: ReadLimits, nested: Callable[[bytes], Any] = _no_nested) -> Rules:
    return Rules(calls=CALLS, mentions=MENTIONS, storage=storage, nested=nested, budget=budget)


@dataclass(frozen=True)
class _StorageKind:
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
        """Compare a claim of `count` numbers with the bytes that are there."""
        n_bytes = row.numbers.numel() * row.numbers.element_size()
        if count * self.dtype.itemsize != n_bytes:
            raise damaged(f"storage '{key}' claims {count * self.dtype.itemsize:,} bytes, it has {n_bytes:,}")
        if row.numbers.dtype == self.dtype and row.quantized == self.quantized:
            return row
        return Storage(row.numbers.view(self.dtype), self.quantized)


def _storage_id(persistent_id: Any, length: int) -> tuple[_StorageKind, str, int]:
    """Return (kind, key, count) of ('storage', type, key, location, count, …)."""
    named = isinstance(persistent_id, tuple) and len(persistent_id) >= length
    if not (named and persistent_id[0] in ("storage", b"storage")):
        raise refuse("a persistent id")
    _, kind, key, _, count = persistent_id[:5]
    if not isinstance(kind, Global) or not isinstance(key, (str, int)) or type(count) is not int or count < 0:
        raise TypeError("a storage without a type, a key or a size")
    if kind.module not in ("torch", "torch.cuda", "torch.storage"):
        raise refuse(kind)
    if kind.name in QUANTIZED:
        name, dtype = QUANTIZED[kind.name]
        return _StorageKind(dtype, name), str(key), count
    if kind.name not in STORAGES:
        raise CheckpointError(f"holds a storage of an unknown type, '{kind}'")
    return _StorageKind(STORAGES[kind.name]), str(key), count


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
