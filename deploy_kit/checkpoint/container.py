"""File → named tensors, by its bytes and never by its extension. Untrusted input: nothing in a file is executed."""

import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from deploy_kit import codec
from deploy_kit.errors import CheckpointError, InputError
from deploy_kit.records import Preprocess

FACTS_KEY = "deploykit.densenet"
PREPROCESS_KEY = "deploykit.preprocess"
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_GIVE = "give a file that torch.save or safetensors wrote, or an ONNX file"
_AGAIN = "it may be cut off: get it again"
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")
# First bytes, in lower case and without white space before them → what a file is that this version does not read.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to (run `git lfs pull`)"),
    (b"\x89hdf\r\n", "an HDF5 file"),
    (b"<!doctype", "an HTML page, not the download it was meant to be"),
    (b"<html", "an HTML page, not the download it was meant to be"),
    (b"\x80", "a plain pickle"),
)
# What torch's reader raises on bytes that are not what they should be, seen by cutting and flipping files.
_BROKEN = (
    RuntimeError, EOFError, ValueError, OSError, LookupError, AssertionError, TypeError, AttributeError, ImportError,
    OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_REFUSED = re.compile(r"\bGLOBAL:? ([\w.]+)")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file states of its architecture; None where it is silent."""

    stem_stride: int | None = None
    stem_pool: bool | None = None
    eps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
        kind: The container, e.g. ``safetensors``.
        tensors: By name.
        facts: Facts of the architecture that the file states.
        preprocess: If the file states it.
        remarks: What was chosen while reading.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    facts: Facts = Facts()
    preprocess: Preprocess | None = None
    remarks: tuple[str, ...] = ()


def read(path: Path) -> Contents:
    """Read a safetensors file or a torch checkpoint (zip or legacy).

    Raises:
        InputError: Missing or unreadable.
        CheckpointError: Of another kind, cut off, or asking for code to be run.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", hint="check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint="give a file") from error
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04") or head.startswith(_LEGACY_MAGIC):
        return _read_torch(path, zipped=head.startswith(b"PK"))
    plain = head.lstrip().lower()
    found = next((what for magic, what in _FOREIGN if plain.startswith(magic)), "neither" if head else "an empty file")
    raise CheckpointError(f"{path}: expected a torch or safetensors checkpoint, found {found}", hint=_GIVE)


def _read_safetensors(path: Path) -> Contents:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from error
    try:
        stated = {key: json.loads(metadata[key]) for key in (FACTS_KEY, PREPROCESS_KEY) if key in metadata}
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata is not JSON: {error}") from error
    facts = codec.from_json(Facts, stated.get(FACTS_KEY, {}), f"{path}: {FACTS_KEY}")
    for name in ("stem_stride", "eps"):
        value = getattr(facts, name)
        if value is not None and not value > 0:
            raise CheckpointError(f"{path}: {FACTS_KEY}.{name}: expected more than 0, found {value}")
    where = f"{path}: {PREPROCESS_KEY}"
    preprocess = codec.from_json(Preprocess, stated[PREPROCESS_KEY], where) if PREPROCESS_KEY in stated else None
    return Contents(kind="safetensors", tensors=tensors, facts=facts, preprocess=preprocess)


def _read_torch(path: Path, *, zipped: bool) -> Contents:
    if zipped:
        _verify_zip(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = _REFUSED.search(str(error))
        raise CheckpointError(
            f"{path}: holds more than tensors, and reading it would run its code"
            + (f": it asks for '{name[1]}'" if name else ""),
            hint="save the tensors alone where the model is at hand: torch.save(model.state_dict(), 'weights.pth')",
        ) from error
    except _BROKEN as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: not a whole torch checkpoint: {reason}", hint=_AGAIN) from error
    tensors, remark = _state_dict(data, path)
    remarks = (f"weights taken from '{remark}'",) if remark else ()
    return Contents(kind="torch zip" if zipped else "torch legacy", tensors=tensors, remarks=remarks)


def _verify_zip(path: Path) -> None:
    """Check every member's CRC: torch does not, and loads flipped bytes without a word."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except _BROKEN as error:
        raise CheckpointError(f"{path}: not a whole file: {error}", hint=_AGAIN) from error
    if broken:
        raise CheckpointError(f"{path}: '{broken}' inside it is damaged", hint="get the file again")


def _state_dict(data: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Find the state dict: the file itself, or one level down under a usual name."""
    candidates = [("", data)]
    if isinstance(data, Mapping):
        candidates += [(key, data[key]) for key in _STATE_KEYS if key in data]
    for key, value in candidates:
        if isinstance(value, Mapping):
            tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
            if sum(tensor.dim() >= 3 for tensor in tensors.values()) >= 4:
                return tensors, key
    found = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
    raise CheckpointError(
        f"{path}: expected a state dict with convolutions, found {found or 'nothing'}",
        hint="save the weights where the model is at hand: torch.save(model.state_dict(), 'weights.pth')",
    )
