"""A whole pickled module → its state dict and plain attributes, from inert records; its code is not needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.pickled.inert_values import SAVE_TENSORS, Record, Unreadable
from deploy_kit.checkpoint.formats.pickled.numpy_arrays import Array

_MAX_MODULES, _MAX_DEPTH = 50_000, 64
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class PickledModule:
    """A module without its code.

    Attributes:
        tensors: Contents of its ``state_dict()``, under the same names and in the same order.
        attributes: Module path → class name and plain attributes.
    """

    tensors: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


def is_module(value: Any) -> bool:
    """Return whether a value is a record of a `torch.nn.Module`, of whatever class."""
    return isinstance(value, Record) and isinstance(value.attributes().get("_modules"), (dict, Record))


def flatten(root: Record) -> PickledModule:
    """Walk a module as ``state_dict()`` does: parameters, persistent buffers, then the modules in it.

    Raises:
        CheckpointError: It contains itself or is too large.
    """
    result = PickledModule()
    _walk(root, "", result, 0)
    return result


def _walk(module: Record, path: str, into: PickledModule, depth: int) -> None:
    if depth > _MAX_DEPTH or len(into.attributes) >= _MAX_MODULES:
        raise CheckpointError(
            f"refused: its module has more than {_MAX_DEPTH} levels or {_MAX_MODULES:,} parts", hint=SAVE_TENSORS
        )
    state = module.attributes()
    into.attributes[path] = {"class": module.kind} | {
        key: value for key, value in state.items() if isinstance(key, str) and key[:1] != "_" and _is_plain(value)
    }
    prefix = f"{path}." if path else ""
    skipped = _names(state.get("_non_persistent_buffers_set"))
    for table in ("_parameters", "_buffers"):
        for name, value in _items(state.get(table)).items():
            if isinstance(value, (Tensor, Unreadable, Array)) and name not in skipped:
                into.tensors[f"{prefix}{name}"] = value
    for name, child in _items(state.get("_modules")).items():
        if isinstance(child, Record):
            _walk(child, f"{prefix}{name}", into, depth + 1)


def _items(table: Any) -> Mapping[Any, Any]:
    if isinstance(table, Record):
        return table.items
    return table if isinstance(table, dict) else {}


def _names(value: Any) -> set[Any]:
    names = value.elements if isinstance(value, Record) else value
    return {name for name in names if isinstance(name, str)} if isinstance(names, (list, set, frozenset)) else set()


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 8 and all(isinstance(item, _PLAIN) for item in value)
    return value is None or isinstance(value, _PLAIN)
