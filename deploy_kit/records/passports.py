"""Passports: the record of an artifact beside it, in a store or wherever it was copied, with a hash of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import InputError, RecipeError, StoreError
from deploy_kit.base.plain_text import shell_word
from deploy_kit.base.whole_files import digest_of, sha256_of, verify_place
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact

PASSPORT, RECORD = ".passport.json", "record.json"
_SEAL = "record_sha256"
_COMPANIONS = {".xml": (".bin",), ".param": (".bin",)}


def read_passport(file: Path) -> Artifact | None:
    """Read the passport of an artifact, in a store or wherever it was copied; None without one, or of another content.

    It is ``record.json`` in a store, and ``FILE.passport.json`` beside a copy; copies of deploykit 0.2 and earlier of
    several files may have ``STEM.passport.json``.
    """
    for passport in (file.with_name(RECORD), passport_of(file), file.with_name(file.stem + PASSPORT)):
        try:
            data = unsealed(json.loads(passport.read_text(encoding="utf-8")), passport)
            artifact = codec.from_json(Artifact, data.get("onnx", data))
        except (OSError, ValueError, AttributeError, RecipeError, RecursionError, StoreError):
            continue
        if _is_content(file, artifact):
            return artifact
    return None


def passport_beside(file: Path) -> Path | None:
    """Return the passport beside a copy, whether it is of the copy or of what was there before; None without one."""
    return next((one for one in (passport_of(file), file.with_name(file.stem + PASSPORT)) if one.is_file()), None)


def verify_out(out: Path | None) -> None:
    """Refuse a target of a copy that cannot be written or is not ours to replace, before any work.

    Raises:
        InputError: A folder, a file in a folder that does not exist, or a file that no earlier copy made.
    """
    if out is None:
        return
    verify_place(out, f"--out {shell_word(out / 'model.onnx')}")
    if out.exists() and not passport_of(out).is_file():
        raise InputError(f"{out}: exists, and was not written by deploykit", hint="choose another --out")


def passport_of(out: Path) -> Path:
    return out.with_name(out.name + PASSPORT)


def files_of_copy(file: Path) -> tuple[Path, ...]:
    """List the files of a copy: itself, those that belong to it, and its passport."""
    beside = passport_beside(file)
    return _parts(file) if beside is None else (*_parts(file), beside)


def mismatch(file: Path) -> str:
    """Say why the passport beside a file cannot be relied on; empty without one, and where it can."""
    beside = passport_beside(file)
    if beside is None:
        return ""
    try:
        data = json.loads(beside.read_text(encoding="utf-8"))
        unsealed(data, beside)
    except (OSError, ValueError, RecursionError):
        return f"its passport, {beside.name}, cannot be read"
    except StoreError:
        return f"its passport, {beside.name}, was changed since it was written"
    if read_passport(file) is not None:
        # What TensorRT's plans need beside them in a store is no record, and has no hash.
        whole = isinstance(data, dict) and (_SEAL in data or "kind" not in data.get("onnx", data))
        return "" if whole else f"its passport, {beside.name}, has no {_SEAL}: a change of it could not be seen"
    return f"it is not what {beside.name} describes: it was changed, or is another file"


def _is_content(file: Path, artifact: Artifact) -> bool:
    """Return whether a file, and those that belong to it, are what a passport speaks of, whatever they are called."""
    if artifact.built is not None:  # a plan's own passport is part of its hash, and a copy's is the record
        return sha256_of(file) == artifact.built.engine_sha256
    named, parts = Path(artifact.path).stem, _parts(file)
    lines = sorted(f"{named}{part.suffix} {sha256_of(part)}\n" for part in parts)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest() if len(parts) > 1 else sha256_of(file)
    # In a store alone whatever has the stem of a file belongs to it.
    return artifact.sha256 in (digest, digest_of(file) if file.with_name(RECORD).is_file() else digest)


def _parts(file: Path) -> tuple[Path, ...]:
    beside = (file.with_suffix(ending) for ending in _COMPANIONS.get(file.suffix, ()))
    return (file, *(part for part in beside if part.is_file()))


def unsealed(data: Any, path: Path) -> Any:
    """Return a record's JSON without its hash, once it is what was written; one without a hash is returned as it is.

    Args:
        data: JSON of ``record.json`` or of a passport that was copied from one.
        path: Where it was read, for the message.

    Raises:
        StoreError: It was changed.
    """
    if not isinstance(data, dict) or _SEAL not in data:
        return data
    rest = {key: value for key, value in data.items() if key != _SEAL}
    if data[_SEAL] != _seal_of(rest):
        raise changed_since(path)
    return rest


def sealed(record: Any) -> str:
    """Write a record with the hash of its content."""
    data = codec.to_json(record)
    return codec.canonical_json({**data, _SEAL: _seal_of(data)})


def _seal_of(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(codec.canonical_json(data).encode(errors="backslashreplace")).hexdigest()


def changed_since(path: Path) -> StoreError:
    """Make the error of a record or a file that is not what was kept."""
    return StoreError(f"{path}: missing, or changed since it was made", hint=f"delete '{path.parent}' and run again")
