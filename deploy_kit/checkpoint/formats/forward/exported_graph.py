"""A torch.export graph → its outputs, node by node. Source of the layout: torch/_export/serde/schema.py, torch 2.13."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Answer, OnRead
from deploy_kit.checkpoint.formats.forward.operators import BROKEN, Operators, unknown

_ATEN = "torch.ops.aten."
_MAX_INTEGER = 1 << 40
# Guards compute nothing; they hold for every input of the stated shape.
GUARDS = ("_assert", "sym_constrain", "_guards")
_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "truediv": operator.truediv, "mod": operator.mod, "neg": operator.neg, "getitem": operator.getitem,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "sym_max": max, "sym_min": min, "sym_int": int, "sym_float": float,
}  # fmt: skip
_PLAIN = (
    "as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools", "as_none", "as_scalar_type",
    "as_memory_format", "as_layout", "as_device",
)  # fmt: skip


class ExportedForward:
    """The forward pass of a torch.export graph."""

    source = "its torch.export graph"

    def __init__(self, module: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Bind a graph's JSON to the archive's tensors.

        Raises:
            KeyError, TypeError: It is written otherwise than expected.
        """
        self._graph, self._tensors = module["graph"], tensors
        signature = module["signature"]
        self._weights: dict[str, str] = {}
        self._inputs: list[str] = []
        for spec in signature["input_specs"]:
            for kind, key in (("parameter", "parameter_name"), ("buffer", "buffer_name")):
                if kind in spec:
                    self._weights[spec[kind]["arg"]["name"]] = spec[kind][key]
            if "tensor_constant" in spec:
                self._weights[spec["tensor_constant"]["arg"]["name"]] = spec["tensor_constant"]["tensor_constant_name"]
            if "user_input" in spec:
                self._inputs.append(spec["user_input"]["arg"]["as_tensor"]["name"])
        self._outputs = [
            spec["user_output"]["arg"]["as_tensor"]["name"]
            for spec in signature["output_specs"]
            if "user_output" in spec
        ]
        sizes = self._graph["tensor_values"][self._inputs[0]]["sizes"]
        stated = tuple(axis.get("as_int") for axis in sizes)
        self.batch: int | None = stated[0]
        self.shape: tuple[int | None, ...] = stated[1:]

    @torch.no_grad()
    def answers(self, x: Tensor, on_read: OnRead | None = None) -> tuple[Answer, ...]:
        """Compute the graph's outputs; see `StatedForward`."""
        if len(self._inputs) != 1:
            raise CheckpointError(f"{self.source} has {len(self._inputs)} inputs, expected one")
        run = Operators(self._tensors, on_read or (lambda name, read: None), self.source)
        values: dict[str, Any] = {self._inputs[0]: x}
        for name, weight in self._weights.items():
            if weight in run.weights:
                values[name] = run.weights[weight]
        last_use = self._last_uses()
        try:
            for place, node in enumerate(self._graph["nodes"]):
                self._step(node, values, run)
                for name in last_use.get(place, ()):
                    values.pop(name, None)
            return run.answer([values[name] for name in self._outputs])
        except BROKEN as error:
            raise CheckpointError(
                f"{self.source} cannot be followed: {type(error).__name__}: {str(error)[:200]}"
            ) from error

    def _last_uses(self) -> dict[int, list[str]]:
        """Return which values no later node reads, so that maps do not pile up in memory."""
        last: dict[str, int] = {}
        for place, node in enumerate(self._graph["nodes"]):
            for entry in node["inputs"]:
                last |= dict.fromkeys(_names(entry["arg"]), place)
        kept = {*self._outputs, *self._weights}
        uses: dict[int, list[str]] = {}
        for name, place in last.items():
            if name not in kept:
                uses.setdefault(place, []).append(name)
        return uses

    def _step(self, node: Mapping[str, Any], values: dict[str, Any], run: Operators) -> None:
        target = node["target"]
        name = target.removeprefix(_ATEN).partition(".")[0] if target.startswith(_ATEN) else target.rpartition(".")[2]
        if any(guard in target for guard in GUARDS):
            return
        rows = [(entry.get("kind", 1), entry["name"], self._value(entry["arg"], values)) for entry in node["inputs"]]
        places = [value for kind, _, value in rows if kind != 2]
        options = {key: value for kind, key, value in rows if kind == 2}
        if target.startswith(_ATEN):
            result = run.call(name, places, options)
        elif name in _NUMBERS and (name == "getitem" or not any(isinstance(value, Tensor) for value in places)):
            result = _NUMBERS[name](*places)
            if isinstance(result, int) and abs(result) > _MAX_INTEGER:
                raise OverflowError("a size that no tensor has")
        else:
            raise unknown(self.source, target)
        outputs = [name for entry in node["outputs"] for name in _names(entry)]
        several = len(outputs) > 1 or "as_tensors" in (node["outputs"] or [{}])[0]
        values.update(zip(outputs, result if several else [result], strict=False))

    def _value(self, argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        if "as_tensor" in argument:
            return values[argument["as_tensor"]["name"]]
        for key in ("as_tensors", "as_optional_tensors"):
            if key in argument:
                return [
                    self._value(entry, values) if "as_none" not in entry else None for entry in _entries(argument, key)
                ]
        for key in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            if key in argument:
                return _number(argument[key], values)
        if "as_sym_ints" in argument:
            return [_number(entry, values) for entry in argument["as_sym_ints"]]
        if "as_none" in argument:
            return None
        for key in _PLAIN:
            if key in argument:
                return argument[key]
        raise ValueError(f"an argument of an unknown kind, {sorted(argument)[:1]}")


def _entries(argument: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [entry if key == "as_optional_tensors" else {"as_tensor": entry} for entry in argument[key]]


def _number(entry: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return a size: a number, or the result of a node by its name."""
    if "as_name" in entry:
        return values[entry["as_name"]]
    return next(value for value in entry.values())


def _names(argument: Mapping[str, Any]) -> list[str]:
    """List the values that an argument or an output names."""
    for key in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        if key in argument:
            entry = argument[key]
            return [name for name in (entry.get("name"), entry.get("as_name")) if name]
    rows = [*argument.get("as_tensors", []), *argument.get("as_sym_ints", []), *argument.get("as_optional_tensors", [])]
    return [
        name
        for entry in rows
        if (name := entry.get("name") or entry.get("as_name") or entry.get("as_tensor", {}).get("name"))
    ]
