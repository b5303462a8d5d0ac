"""Options of an engine as flags: ``-o key=value`` for all of them, and flags of their own for the common ones."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from deploy_kit.base.errors import RequestError


def parse(options: type[Any], texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` texts as the record `options` takes them; a list is given one entry at a time.

    What does not fit is passed on as text, for the record to refuse with its name.

    Raises:
        RequestError: A text has no ``=``.
    """
    hints = typing.get_type_hints(options)
    read: dict[str, Any] = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not (key and mark):
            raise RequestError(f"'{text}': expected key=value", hint=f"known: {', '.join(hints) or 'none'}")
        key = key.replace("-", "_")
        hint = hints.get(key)
        if typing.get_origin(hint) is tuple:
            read[key] = [*read.get(key, []), value]
        else:
            read[key] = _value(value, hint)
    return read


def changed(options: type[Any], record: Mapping[str, Any]) -> str:
    """Write the options that are not as the engine has them by default."""
    default = {field.name: field.default for field in dataclasses.fields(options)}
    rows = [(key, tuple(value) if isinstance(value, list) else value) for key, value in record.items()]
    said = [f"{key}={_written(value)}" for key, value in rows if value != default.get(key)]
    return ", ".join(said) or "as by default"


def _value(text: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if int in kinds and text.lstrip("-").isdecimal():
        return int(text)
    return text


def _written(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
