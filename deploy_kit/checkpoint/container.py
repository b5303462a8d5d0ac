"""File → named tensors, by its bytes and never by its extension. Untrusted input: nothing in a file is executed."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
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
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")
# First bytes → what a file is that holds no checkpoint this version reads.
_FOREIGN = (
    (b"", "an empty file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to (run `git lfs pull`)"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"<!DOCTYPE", "an HTML page, not the download it was meant to be"),
    (b"<html", "an HTML page, not the download it was meant to be"),
    (b"\x80", "a plain pickle"),
)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
        kind: The container, e.g. ``safetensors``.
        tensors: By name.
        facts: Facts of the architecture that the file states, e.g. ``{"stem_stride": 1}``.
        preprocess: If the file states it.
        remarks: What was chosen while reading.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
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
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04") or head.startswith(_LEGACY_MAGIC):
        return _read_torch(path, zipped=head.startswith(b"PK"))
    for magic, what in _FOREIGN:
        if (magic and head.startswith(magic)) or not (magic or head):
            raise CheckpointError(f"{path}: expected a torch or safetensors checkpoint, found {what}")
    raise CheckpointError(f"{path}: expected a torch or safetensors checkpoint, found neither")


def _read_safetensors(path: Path) -> Contents:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from error
    try:
        facts = json.loads(metadata.get(FACTS_KEY, "{}"))
        stated = json.loads(metadata[PREPROCESS_KEY]) if PREPROCESS_KEY in metadata else None
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata is not JSON: {error}") from error
    preprocess = codec.from_json(Preprocess, stated, f"{path}: {PREPROCESS_KEY}") if stated else None
    return Contents(kind="safetensors", tensors=tensors, facts=facts, preprocess=preprocess)


def _read_torch(path: Path, *, zipped: bool) -> Contents:
    if zipped:
        _verify_zip(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: holds more than tensors, and reading it would run its code: {first}",
            hint="save the tensors alone where the model is at hand: torch.save(model.state_dict(), 'weights.pth')",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole torch checkpoint: {error}") from error
    tensors, remark = _state_dict(data, path)
    remarks = (f"weights taken from '{remark}'",) if remark else ()
    return Contents(kind="torch zip" if zipped else "torch legacy", tensors=tensors, remarks=remarks)


def _verify_zip(path: Path) -> None:
    """Check every member's CRC: torch does not, and loads flipped bytes without a word."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole file: {error}", hint="it may be cut off: get it again") from error
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
    raise CheckpointError(f"{path}: expected a state dict with convolutions, found {found or 'nothing'}")
