"""File → named tensors, by its bytes and never by its extension: ``.pth.tar`` is no tar, ``.pkl`` may be a zip."""

import dataclasses
import re
from pathlib import Path

from deploy_kit.base.errors import CheckpointError, InputError, RequestError, no_such_file
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.formats import foreign, safetensors_file, sidecar, zip_formats
from deploy_kit.checkpoint.formats.folders import folder_refusal, merge_command
from deploy_kit.checkpoint.formats.keras_files import hdf5, keras_file
from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled import torch_file
from deploy_kit.checkpoint.formats.pickled.pickled_contents import contents_of
from deploy_kit.checkpoint.formats.zip_archive import MAGIC, open_archive

__all__ = ["Contents", "read_contents"]

_HEAD, _TAIL = 512, 64
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")
_PICKLE = b"\x80"  # protocol 2 or later
# A pickle of protocol 0 or 1 has no header: it begins with what it holds, and ends in a full stop.
_OLD_PICKLE = re.compile(rb"\([dlitcVISF(X]|[}\]]q|c[\w.]+\n[\w.]+\n")


def read_contents(path: Path, *, state_key: str | None = None) -> Contents:
    """Read a checkpoint file.

    Args:
        path: The file, whatever its extension.
        state_key: State dict to take where there are several, as a dotted path.

    Raises:
        InputError: The file is missing or cannot be read.
        CheckpointError: It is of another kind, cut off, made to exhaust memory, or asks for code to be run.
        MissingPackageError: Its format needs a package that is not installed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except IsADirectoryError as error:
        raise folder_refusal(path) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint="give a file") from error
    _verify_whole(path)
    try:
        contents = _read(path, head, state_key)
        if state_key is not None and contents.state_key is None:
            raise CheckpointError(
                f"{contents.kind} holds one set of weights, and none is called '{state_key}'",
                hint="leave --state-key out",
            )
        return dataclasses.replace(contents, beside=sidecar.read_sidecar(path))
    except RequestError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint) from error


def _verify_whole(path: Path) -> None:
    """Refuse one part of a checkpoint that was saved in parts, as its name says."""
    part = _PART.search(path.name)
    if part is not None and part[2] != "00001":
        raise CheckpointError(
            f"{path}: part {int(part[1])} of a checkpoint in {int(part[2])} parts",
            hint=f"merge them: {merge_command(path.parent)}",
        )


def _read(path: Path, head: bytes, state_key: str | None) -> Contents:
    """Read a file whose first bytes are `head`; the formats that are surest by their bytes are asked first."""
    size = path.stat().st_size
    budget = ReadLimits(size)
    if safetensors_file.is_safetensors(head):
        return safetensors_file.read_safetensors(path, head)
    if head.startswith(hdf5.MAGIC):
        return keras_file.read_hdf5(path)
    with path.open("rb") as file:
        if head.startswith(MAGIC):
            with open_archive(file, budget) as archive:
                return zip_formats.read_zip(archive, budget, state_key)
        if torch_file.is_legacy(head):
            return contents_of("torch legacy", torch_file.read_legacy(file, budget), budget, state_key)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        file.seek(0)
        if head.startswith(_PICKLE) or (_OLD_PICKLE.match(head) and tail.endswith(b".")):
            return contents_of("pickle", torch_file.read_pickle(file, budget), budget, state_key)
        raise foreign.refusal(head, tail)
