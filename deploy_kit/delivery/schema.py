"""The JSON Schema of ``manifest.json``, from the records that it is read into; `docs/manifest.schema.json` holds it."""

import dataclasses
import inspect
import re
import types
import typing
from typing import Any, Literal

from deploy_kit.delivery.manifest import SCHEMA_VERSION, Manifest

_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {"type": "object"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]},
    type(None): {"type": "null"},
}


def manifest_schema() -> dict[str, Any]:
    """Return the schema, in the dialect of 2020-12."""
    found: dict[str, Any] = {}
    _schema(Manifest, found)
    top = found.pop(Manifest.__name__)
    top["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "manifest.json of a bundle", **top, "$defs": dict(sorted(found.items()))}


def _schema(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one type; records that it is made of are put into `found` by name."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    origin, items = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(items)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(item, found) for item in items]}
    if origin is tuple and items[-1] is Ellipsis:
        return {"type": "array", "items": _schema(items[0], found)}
    if origin is tuple:
        places = [_schema(item, found) for item in items]
        return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}
    if hint.__name__ not in found:
        found[hint.__name__] = {}
        found[hint.__name__] = _record(hint, found)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _record(record: type[Any], found: dict[str, Any]) -> dict[str, Any]:
    hints, words, fields = typing.get_type_hints(record), _words(record), dataclasses.fields(record)
    needed = [f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return {
        "type": "object",
        "description": words[""],
        "properties": {f.name: {**_schema(hints[f.name], found), "description": words[f.name]} for f in fields},
        "required": [f.name for f in needed],
        "additionalProperties": False,
    }


def _words(record: type[Any]) -> dict[str, str]:
    """Read what a record's docstring says of it (under the empty name) and of each field."""
    text = (inspect.getdoc(record) or "").replace("`", "")
    head, _, attributes = text.partition("Attributes:\n")
    pieces = re.split(r"^    (\w+): ", attributes, flags=re.MULTILINE)
    described = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    return {name: " ".join(words.split()) for name, words in {"": head.split("\n\n")[0], **described}.items()}
