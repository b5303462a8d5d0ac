"""Options of an engine as flags: ``-o key=value`` for all of them, and flags of their own for the common ones."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from deploy_kit.base.errors import RequestError


def parse(options: type[Any], texts: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=value`` texts into the values that the record `options` takes.

    A list is given one entry at a time. A value that does not fit is returned as text: the record refuses it by name.

    Args:
        options: Record class of an engine's options.
        texts: One option each.

    Raises:
        RequestError: A text has no ``=``.
    """
    hints = typing.get_type_hints(options)
    values: dict[str, Any] = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not (key and mark):
            raise RequestError(f"'{text}': expected key=value", hint=f"known: {', '.join(hints) or 'none'}")
        key = key.replace("-", "_")
        hint = hints.get(key)
        if typing.get_origin(hint) is tuple:
            values[key] = [*values.get(key, []), value]
        else:
            values[key] = _value(value, hint)
    return values


def changed(options: type[Any], record: Mapping[str, Any]) -> str:
    """List the options that differ from the engine's defaults."""
    default = {field.name: field.default for field in dataclasses.fields(options)}
    rows = [(key, tuple(value) if isinstance(value, list) else value) for key, value in record.items()]
    settings = [f"{key}={_written(value)}" for key, value in rows if value != default.get(key)]
    return ", ".join(settings) or "defaults"


def _value(text: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if int in kinds and text.lstrip("-").isdecimal():
        return int(text)
    return text


def _written(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
