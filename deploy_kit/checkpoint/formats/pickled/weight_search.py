"""Which of the values in a checkpoint are the weights: the state dict, its EMA copy, or a whole module."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError, nearest
from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled import pickled_modules
from deploy_kit.checkpoint.formats.pickled.inert_values import SAVE_TENSORS, Record, Unreadable
from deploy_kit.checkpoint.formats.pickled.numpy_arrays import Array

_LEVELS = 6
_MIN_CONVOLUTIONS = 4
_MAX_CHILDREN = 4096
_EMA = re.compile(r"(^|[._])ema|ema($|[._])|averaged|swa_(model|state)", re.IGNORECASE)
_OPTIMIZER = re.compile(r"optim|opt$|(lr_)?scheduler|amp$|scaler$", re.IGNORECASE)
# Names in order of precedence, where several hold equal weights.
_USUAL = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "backbone",
)  # fmt: skip
_MAX_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The weights.

    Attributes:
        path: Their path in the file, e.g. ``state_dict_ema``; empty if the file holds nothing else.
        tensors: Tensors by name.
        attributes: Attributes of a whole module, by module path.
        remarks: What was chosen.
    """

    path: str
    tensors: dict[str, Tensor]
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    path: str
    tensors: dict[str, Any]
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ema(self) -> bool:
        return bool(_EMA.search(self.path))


def find_weights(data: Any, budget: ReadLimits, *, state_key: str | None = None) -> FoundWeights:
    """Find the weights, at most six levels deep.

    Args:
        data: Inert values of the file.
        budget: Budget of the file, for arrays that become tensors.
        state_key: State dict to take where there are several, as a dotted path.

    Raises:
        CheckpointError: There are none, or several and none is asked for, or some that cannot be used.
    """
    candidates = list(_candidates(data, "", 0, set(), state_key=state_key))
    if not candidates:
        raise _nothing(data)
    chosen, remarks = _choose(candidates, state_key)
    if chosen.attributes:
        remarks = (*remarks, f"a whole module ('{chosen.attributes['']['class']}'): its weights read, its code not run")
    return FoundWeights(
        path=chosen.path,
        tensors={name: _usable(name, value, budget) for name, value in chosen.tensors.items()},
        attributes=chosen.attributes,
        remarks=remarks,
    )


def _candidates(
    value: Any, path: str, level: int, searched: set[int], *, state_key: str | None
) -> Iterator[_Candidate]:
    """Yield whatever could be the weights; what holds them is not searched further.

    A value is searched once, wherever else it hangs: a short pickle can refer to one list billions of times.
    """
    candidate = _as_candidate(value, path)
    if candidate is not None:
        yield candidate
        return
    if level >= _LEVELS or id(value) in searched:
        return
    searched.add(id(value))
    for key, child in _children(value):
        below = f"{path}.{key}" if path else key
        # An optimizer's moments have the shapes of the weights.
        if not _OPTIMIZER.match(key) or below == state_key:
            yield from _candidates(child, below, level + 1, searched, state_key=state_key)


def _as_candidate(value: Any, path: str) -> _Candidate | None:
    """Return a whole module or a dict of tensors with as many convolutions as a network has; else None."""
    if pickled_modules.is_module(value):
        module = pickled_modules.flatten(value)
        candidate = _Candidate(path, module.tensors, module.attributes)
    else:
        table = value.items if isinstance(value, Record) else value
        if not isinstance(table, dict):
            return None
        tensors = {_name(key): _unpaired(item) for key, item in table.items() if isinstance(key, (str, bytes))}
        candidate = _Candidate(path, {key: item for key, item in tensors.items() if _is_tensor(item)})
    convolutions = sum(len(_shape(tensor)) >= 3 for tensor in candidate.tensors.values())
    return candidate if convolutions >= _MIN_CONVOLUTIONS else None


def _children(value: Any) -> list[tuple[str, Any]]:
    """List what is one level down, by name or number."""
    if isinstance(value, Record):
        pairs = [*value.attributes().items(), *value.items.items(), *enumerate(value.elements)]
    elif isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value[:_MAX_CHILDREN]))
    else:
        return []
    return [(_name(key), child) for key, child in pairs[:_MAX_CHILDREN] if isinstance(key, (str, bytes, int))]


def _choose(candidates: list[_Candidate], state_key: str | None) -> tuple[_Candidate, tuple[str, ...]]:
    """Choose one candidate and remark it: the one that is asked for, else the EMA, else the only one."""
    paths = [candidate.path for candidate in candidates]
    if state_key is not None:
        chosen = next((candidate for candidate in candidates if candidate.path == state_key), None)
        if chosen is None:
            raise CheckpointError(
                f"no state dict is called '{state_key}'", hint=nearest(state_key, filter(None, paths))
            )
        return chosen, (f"weights taken from '{state_key}', as asked",)
    averaged = _distinct([candidate for candidate in candidates if candidate.ema])
    raw = _distinct([candidate for candidate in candidates if not candidate.ema])
    if len(averaged) > 1 or len(raw) > 1:
        raise CheckpointError(
            f"holds several state dicts, and --state-key does not say which to take: {_listed(paths)}",
            hint=f"choose one, e.g. --state-key {(averaged if len(averaged) > 1 else raw)[0].path}",
        )
    if averaged and raw:
        return averaged[0], (f"EMA weights taken from '{averaged[0].path}' (the raw ones: --state-key {raw[0].path})",)
    chosen = (averaged or raw)[0]
    return chosen, (f"weights taken from '{chosen.path}'",) if chosen.path else ()


def _distinct(candidates: list[_Candidate]) -> list[_Candidate]:
    """Drop copies of the same weights, keeping the one with the most usual name."""
    rank = {name: place for place, name in enumerate(_USUAL)}
    kept: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda one: rank.get(one.path.rpartition(".")[2], len(rank))):
        if not any(_equal(candidate.tensors, other.tensors) for other in kept):
            kept.append(candidate)
    return kept


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    return all(
        a is b or (isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b))
        for a, b in pairs
    )


def _usable(name: str, value: Any, budget: ReadLimits) -> Tensor:
    """Return a weight as a tensor, and refuse one without plain numbers."""
    tensor = value.tensor(budget) if isinstance(value, Array) else value
    if isinstance(tensor, Unreadable):
        raise CheckpointError(
            f"'{name}' is {tensor.what}; plain floating-point weights are expected",
            hint="give the checkpoint as it was before quantization, pruning or conversion",
        )
    assert isinstance(tensor, Tensor)
    return tensor.resolve_neg()


def _nothing(data: Any) -> CheckpointError:
    """Make the error of a file without weights, which names what is there instead."""
    if _is_tensor(data):
        return CheckpointError("a single tensor, not a state dict", hint=SAVE_TENSORS)
    names = [key for key, _ in _children(data)]
    if not names:
        return CheckpointError("no state dict found: it holds no tensors", hint=SAVE_TENSORS)
    if {"state", "param_groups"} <= set(names) or any(_OPTIMIZER.match(name) for name in names):
        return CheckpointError("optimizer state only, no weights", hint="give the file that holds the model's weights")
    return CheckpointError(
        f"no state dict found: expected {_MIN_CONVOLUTIONS} convolutions or more, found {_listed(names)}",
        hint=SAVE_TENSORS,
    )


def _unpaired(value: Any) -> Any:
    """Return the array of Paddle's (name, array) pairs."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Array):
        return value[1]
    return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, Array, Unreadable))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape)


def _name(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_LISTED
    shown = ", ".join(f"'{name[:80]}'" for name in names[:_MAX_LISTED])
    return shown + (f" and {rest} more" if rest > 0 else "")
