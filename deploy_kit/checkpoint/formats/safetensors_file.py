"""safetensors → named tensors, with the facts and the preprocessing that deploykit's metadata states."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors

from deploy_kit.base.errors import CheckpointError
from deploy_kit.base.text_files import unique_keys
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats.limits import damaged
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

FACTS_KEY = "deploykit.densenet"
PREPROCESS_KEY = "deploykit.preprocess"
# The names of DenseNet-121's 725 tensors take 80 KB; the format itself allows 100 MB.
_MAX_HEADER = 8 << 20


def is_safetensors(head: bytes) -> bool:
    """Return whether a file begins with a header's length (eight bytes, little-endian) and a JSON object."""
    return head[8:9] == b"{" and 0 in head[:8]


def read_safetensors(path: Path, head: bytes) -> Contents:
    """Read the file whose first bytes are `head`.

    Raises:
        CheckpointError: It is not whole, or its header is made to exhaust memory.
        RecipeError: Its metadata states something impossible.
    """
    length = int.from_bytes(head[:8], "little")
    if length > path.stat().st_size - 8:
        raise damaged(f"its header claims {length:,} bytes, the file has {path.stat().st_size:,}")
    if length > _MAX_HEADER:
        raise CheckpointError(f"refused: its header has {length:,} bytes, a checkpoint's less than {_MAX_HEADER:,}")
    try:
        with path.open("rb") as raw:  # of a tensor or a fact that is named twice the library takes the last
            json.loads(raw.read(8 + length)[8:], object_pairs_hook=unique_keys)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (safetensors.SafetensorError, RecursionError, RuntimeError, ValueError, TypeError) as error:
        raise damaged(f"not a whole safetensors file: {error}") from error
    stated = {key: _json(metadata[key], key) for key in (FACTS_KEY, PREPROCESS_KEY) if key in metadata}
    preprocess = (
        codec.from_json(Preprocess, stated[PREPROCESS_KEY], PREPROCESS_KEY) if PREPROCESS_KEY in stated else None
    )
    return Contents(kind="safetensors", tensors=tensors, facts=_facts(stated.get(FACTS_KEY, {})), preprocess=preprocess)


def _json(text: str, key: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its metadata is not JSON: {key}: {error}") from error


def _facts(stated: Any) -> ArchitectureFacts:
    """Read the facts; what the file calls their source is kept as text, and never as another kind of source."""
    source = Source("file", "stated in the file")
    if isinstance(stated, dict):
        stated = dict(stated)
        if isinstance(stated.get("stem_pool"), bool):  # earlier versions knew a max pool or none
            stated["stem_pool"] = "max" if stated["stem_pool"] else "none"
        if "source" in stated:
            source = Source("file", codec.from_json(str, stated.pop("source"), f"{FACTS_KEY}.source"))
    facts = codec.from_json(ArchitectureFacts, stated, FACTS_KEY)
    for name in ("stem_stride", "eps"):
        value = getattr(facts, name)
        if value is not None and not value > 0:
            raise CheckpointError(f"{FACTS_KEY}.{name}: expected more than 0, found {value}")
    return dataclasses.replace(facts, source=source)
