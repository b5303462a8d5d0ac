"""Records to JSON and back, strictly: an unknown key or a wrong type is an error that names its path.

A record class whose JSON form has changed reads the older form itself, by a class method ``upgraded(data)``; a field
that was renamed states its earlier name as ``json was`` in its metadata.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from deploy_kit.base.errors import RecipeError, nearest
from deploy_kit.base.plain_text import one_line, shown
from deploy_kit.records.measurements import NotRun

R = TypeVar("R")
_LARGEST = 1 << 63  # no count, size or time has more digits, and arithmetic on floats would fail on them


def to_json(record: Any) -> Any:
    """Convert a record (or a tuple of records) to values that `json` can write; infinities and NaN become text.

    A field that states ``json: unless default`` in its metadata is left out where it has its default.
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        tag = {"record": type(record).__name__} if isinstance(record, NotRun) else {}
        return tag | {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record) if _told(f, record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(item) for item in record]
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    return record


def _told(field: dataclasses.Field[Any], record: Any) -> bool:
    return field.metadata.get("json") != "unless default" or getattr(record, field.name) != field.default


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value, equal for equal values: keys sorted, no spaces."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(cls: type[R], data: Any, where: str = "") -> R:
    """Build a record of class `cls` from JSON data, strictly.

    Args:
        cls: Record class to build.
        data: Mapping from its field names to their values.
        where: Path of `data` for error messages, e.g. ``recipe.quantize.options``; by default the class's name.

    Returns:
        The record.

    Raises:
        RecipeError: A key is unknown or missing, or a value has the wrong type; the message names its path.
    """
    return typing.cast("R", _build(cls, data, where or cls.__name__))


def _build(hint: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _build_union(hint, data, where)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if data not in allowed:
            raise RecipeError(
                f"{where}: expected one of {', '.join(map(str, allowed))}, found {shown(data)}",
                hint=nearest(str(data), map(str, allowed)),
            )
        return data
    if origin is tuple:
        return _build_tuple(hint, data, where)
    if dataclasses.is_dataclass(hint):
        if hasattr(hint, "upgraded"):
            data = hint.upgraded(data)
        return _build_record(typing.cast("type[Any]", hint), data, where)
    if hint is float and (type(data) is int or data in ("inf", "-inf", "nan")):
        try:
            return float(data)
        except OverflowError as error:
            raise RecipeError(f"{where}: expected a number below 1e308, found {shown(data)}") from error
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise RecipeError(f"{where}: expected {hint.__name__}, found {shown(data)}")
    if hint is int and abs(data) >= _LARGEST:
        raise RecipeError(f"{where}: expected a whole number below 2^63, found {shown(data)}")
    return data


def _build_union(hint: Any, data: Any, where: str) -> Any:
    choices = typing.get_args(hint)
    if data is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if isinstance(data, Mapping):
        # Only `NotRun` is written with a tag; the other records of a union are told apart by their fields.
        tables = [choice for choice in rest if dataclasses.is_dataclass(choice)]
        tagged = [table for table in tables if (table is NotRun) == (data.get("record") == NotRun.__name__)]
        fitting = [table for table in tagged if data.keys() <= {field.name for field in dataclasses.fields(table)}]
        return _build((fitting or tagged or tables or rest)[0], data, where)
    for choice in rest[:-1]:
        if isinstance(choice, type) and isinstance(data, choice) and not isinstance(data, bool):
            return _build(choice, data, where)
    return _build(rest[-1], data, where)


def _build_tuple(hint: Any, data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise RecipeError(f"{where}: expected a list, found {shown(data)}")
    items = typing.get_args(hint)
    if items[-1] is Ellipsis:
        return tuple(_build(items[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(items) != len(data):
        raise RecipeError(f"{where}: expected {len(items)} values, found {len(data)}")
    return tuple(_build(t, item, f"{where}[{i}]") for i, (t, item) in enumerate(zip(items, data, strict=True)))


def _build_record(cls: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a table, found {shown(data)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {key: value for key, value in data.items() if not (cls is NotRun and key == "record")}
    for entry in fields.values():
        if entry.metadata.get("json was") in values:
            values[entry.name] = values.pop(entry.metadata["json was"])
    for key in values:
        if key not in fields:
            raise RecipeError(f"{where}: unknown key '{one_line(str(key))}'", hint=nearest(str(key), fields))
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise RecipeError(f"{where}: '{name}' is missing")
    return cls(**{key: _build(hints[key], value, f"{where}.{key}") for key, value in values.items()})
