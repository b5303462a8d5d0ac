"""TorchScript's code → its outputs, statement by statement. It is read as a syntax tree and never compiled or run.

Source of the language: torch/csrc/jit/serialization/python_print.cpp, torch 2.13: assignments, ``if``, ``for`` and
``while`` on values that are known, calls of methods, functions and operators. Conditions on the pixels have no place.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Answer, OnRead
from deploy_kit.checkpoint.formats.forward.operators import BROKEN, Operators, tensors_of, unknown
from deploy_kit.checkpoint.formats.pickled.inert_values import Record

_MAX_STEPS, _MAX_LEVELS, _MAX_ITEMS, _MAX_INTEGER = 500_000, 64, 10_000, 1 << 40
Values = dict[str, Any]


@dataclass(frozen=True)
class Code:
    """The code of an archive.

    Attributes:
        classes: Class by full name, e.g. ``__torch__.torch.nn.modules.conv.Conv2d``.
        functions: Function by full name, e.g. ``__torch__.torch.nn.functional.relu``.
        constants: Tensors that the code names ``CONSTANTS.c0`` and so on, in that order.
    """

    classes: Mapping[str, ast.ClassDef]
    functions: Mapping[str, ast.FunctionDef]
    constants: tuple[Any, ...] = ()


class TorchScriptForward:
    """The forward pass of a TorchScript module."""

    source = "its TorchScript code"
    shape: tuple[int | None, ...] = ()  # the code states none
    batch: int | None = None

    def __init__(self, root: Record, tensors: Mapping[str, Tensor], code: Code) -> None:
        """Bind the code to a module; `tensors` are the module's own, by name."""
        self._root, self._tensors, self._code = root, tensors, code

    @torch.no_grad()
    def answers(self, x: Tensor, on_read: OnRead | None = None) -> tuple[Answer, ...]:
        """Compute the module's outputs; see `StatedForward`."""
        run = Operators(self._tensors, on_read or (lambda name, read: None), self.source)
        names = {id(tensor): name for name, tensor in self._tensors.items()}
        try:
            return run.answer(_Interpreter(self._code, run, names).method(self._root, "forward", [x], {}, 0))
        except (*BROKEN, RecursionError) as error:
            raise CheckpointError(
                f"{self.source} cannot be followed: {type(error).__name__}: {str(error)[:200]}",
                hint="trace it in eval mode: torch.jit.trace(model.eval(), example), or export it to ONNX",
            ) from error


class _Returned(Exception):  # noqa: N818  # a way out of nested statements, and no error
    """The value of a ``return`` statement."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class _Name:
    """A dotted name that stands for a function or an operator."""

    text: str


class _Interpreter:
    """Carries out statements."""

    def __init__(self, code: Code, run: Operators, names: Mapping[int, str]) -> None:
        self.code, self.run, self.names = code, run, names
        self.constants = [one.float() if _is_float(one) else one for one in code.constants]
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise CheckpointError(f"refused: its code takes more than {_MAX_STEPS:,} steps")

    def method(self, owner: Record, name: str, arguments: list[Any], options: Values, level: int) -> Any:
        methods = (entry for entry in self.code.classes[owner.kind].body if isinstance(entry, ast.FunctionDef))
        # The second call of one traced module is written `forward1`, and only `forward` is defined.
        found = {entry.name: entry for entry in methods}
        function = found.get(name) or (found["forward"] if name.startswith("forward") else found[name])
        return self.function(function, [owner, *arguments], options, level + 1)

    def function(self, function: ast.FunctionDef, arguments: list[Any], options: Values, level: int) -> Any:
        if level > _MAX_LEVELS:
            raise ValueError("calls without end")
        parameters = [argument.arg for argument in function.args.args]
        defaults = function.args.defaults
        values: Values = {
            name: self.value(default, {}, level)
            for name, default in zip(parameters[len(parameters) - len(defaults) :], defaults, strict=True)
        }
        values |= dict(zip(parameters, arguments, strict=False)) | options
        try:
            self.statements(function.body, values, level)
        except _Returned as returned:
            return returned.value
        return None

    def statements(self, body: list[ast.stmt], values: Values, level: int) -> None:
        for line in body:
            self.step()
            if isinstance(line, ast.Assign):
                self.assign(line.targets[0], self.value(line.value, values, level), values)
            elif isinstance(line, ast.AnnAssign) and line.value is not None:
                self.assign(line.target, self.value(line.value, values, level), values)
            elif isinstance(line, ast.Return):
                raise _Returned(None if line.value is None else self.value(line.value, values, level))
            elif isinstance(line, ast.If):
                self.statements(line.body if self.truth(line.test, values, level) else line.orelse, values, level)
            elif isinstance(line, ast.While):
                while self.truth(line.test, values, level):
                    self.step()
                    self.statements(line.body, values, level)
            elif isinstance(line, ast.For):
                for item in self.value(line.iter, values, level):
                    self.step()
                    self.assign(line.target, item, values)
                    self.statements(line.body, values, level)
            elif isinstance(line, ast.Expr):
                self.value(line.value, values, level)
            elif not isinstance(line, ast.Pass):
                raise ValueError(f"a statement of an unknown kind, {type(line).__name__}")

    def assign(self, target: ast.expr, value: Any, values: Values) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for name, item in zip(target.elts, value, strict=True):
                self.assign(name, item, values)
        elif isinstance(target, ast.Name):
            values[target.id] = value
        else:
            raise ValueError("an assignment to a part of an object")

    def truth(self, code: ast.expr, values: Values, level: int) -> bool:
        value = self.value(code, values, level)
        if not isinstance(value, (bool, int)):
            raise ValueError("a condition that depends on the pixels")
        return bool(value)

    def value(self, code: ast.expr, values: Values, level: int) -> Any:
        self.step()
        if isinstance(code, ast.Constant):
            return code.value
        if isinstance(code, ast.Name):
            return values[code.id] if code.id in values else _Name(code.id)
        if isinstance(code, ast.Attribute):
            return self.attribute(self.value(code.value, values, level), code.attr)
        if isinstance(code, (ast.List, ast.Tuple)):
            items = [self.value(item, values, level) for item in code.elts]
            return items if isinstance(code, ast.List) else tuple(items)
        if isinstance(code, ast.Dict):
            keys = [self.value(key, values, level) for key in code.keys if key is not None]
            if not all(isinstance(key, (str, int)) for key in keys):
                raise ValueError("a dict with keys of an unknown kind")
            return dict(zip(keys, (self.value(item, values, level) for item in code.values), strict=True))
        if isinstance(code, ast.UnaryOp) and isinstance(code.op, (ast.USub, ast.Not)):
            value = self.value(code.operand, values, level)
            return -value if isinstance(code.op, ast.USub) else not value
        if isinstance(code, ast.Subscript):
            return self.value(code.value, values, level)[self.value(code.slice, values, level)]
        if isinstance(code, ast.IfExp):
            return self.value(code.body if self.truth(code.test, values, level) else code.orelse, values, level)
        if isinstance(code, ast.Call):
            return self.call(code, values, level)
        raise ValueError(f"an expression of an unknown kind, {type(code).__name__}")

    def attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, _Name):
            if owner.text == "CONSTANTS":
                return self.constants[int(name.removeprefix("c"))]
            return _Name(f"{owner.text}.{name}")
        if not isinstance(owner, Record):
            raise ValueError(f"an attribute '{name[:40]}' of what is no module")
        attributes = owner.attributes()
        if name not in attributes:
            return self.class_constant(owner, name)
        value = attributes[name]
        return self.run.weights[self.names[id(value)]] if isinstance(value, Tensor) else value

    def class_constant(self, owner: Record, name: str) -> Any:
        """Return a constant that stands in a class: ``eps : Final[float] = 1e-05``."""
        for entry in self.code.classes[owner.kind].body:
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.target.id == name:
                if entry.value is None:
                    break
                return self.value(entry.value, {}, 0)
        raise ValueError(f"no attribute is called '{name[:40]}'")

    def call(self, code: ast.Call, values: Values, level: int) -> Any:
        function = code.func
        if isinstance(function, ast.Name) and function.id in _SPECIAL and function.id not in values:
            return _SPECIAL[function.id](self, code, values, level)
        arguments = [self.value(item, values, level) for item in code.args]
        options = {str(item.arg): self.value(item.value, values, level) for item in code.keywords}
        if isinstance(function, ast.Attribute):
            owner = self.value(function.value, values, level)
            if isinstance(owner, Record):
                return self.method(owner, function.attr, arguments, options, level)
            called = self.attribute(owner, function.attr)
        else:
            called = self.value(function, values, level)
        if not isinstance(called, _Name):
            raise ValueError("a call of what is no function")
        if called.text in self.code.functions:
            return self.function(self.code.functions[called.text], arguments, options, level + 1)
        home, _, name = called.text.rpartition(".")
        if home not in ("torch", "ops.prim", "ops.aten"):
            raise unknown(self.run.where, called.text)
        return self.operator(name, arguments, options)

    def operator(self, name: str, arguments: list[Any], options: Values) -> Any:
        if name == "RaiseException":
            raise ValueError(f"its code raises '{str(arguments[0])[:80]}'")
        if name == "floor_divide":  # of sides, which a trace divides by constants kept as tensors
            arguments = [int(one) if isinstance(one, Tensor) and one.dim() == 0 else one for one in arguments]
        tensors = any(True for _ in tensors_of(arguments)) or any(
            isinstance(one, (list, tuple)) and any(True for _ in tensors_of(one)) for one in arguments
        )
        if name in _PLAIN and (not tensors or (name in _ON_LISTS and not isinstance(arguments[0], Tensor))):
            return _bounded(_PLAIN[name](*arguments))
        if not tensors:
            raise unknown(self.run.where, name)
        return self.run.call(name, arguments, options)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _bounded(value: Any) -> Any:
    """Refuse a list or a number that grows without end."""
    if isinstance(value, (list, tuple, str, range)) and len(value) > _MAX_ITEMS:
        raise ValueError("a list without end")
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ValueError("a number without end")
    return value


def _append(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return _bounded(items)  # type: ignore[no-any-return]


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, str) or isinstance(b, str):
        raise ValueError("text that is put together")
    return a + b


def _multiply(a: Any, b: Any) -> Any:
    if not all(isinstance(one, (int, float)) for one in (a, b)):
        raise ValueError("a product of what are no numbers")
    return a * b


def _power(a: Any, b: Any) -> Any:
    if not isinstance(a, (int, float)) or not isinstance(b, (int, float)) or abs(b) > 64:
        raise ValueError("a power of what are no small numbers")
    return a**b


def _extend(items: list[Any], more: list[Any]) -> list[Any]:
    items.extend(_bounded(more))
    return _bounded(items)  # type: ignore[no-any-return]


def _slice(items: list[Any], *cut: Any) -> list[Any]:
    return items[slice(*cut)]


# Operators on numbers and lists. `torch.append` is the one by which torchvision's blocks collect their features.
_PLAIN: Mapping[str, Callable[..., Any]] = {
    "add": _add, "sub": operator.sub, "mul": _multiply, "div": operator.truediv, "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "neg": operator.neg, "pow": _power, "max": max,
    "min": min, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
    "ge": operator.ge, "__not__": operator.not_, "__getitem__": operator.getitem, "len": len, "append": _append,
    "extend": _extend, "list": list, "slice": _slice, "Int": int, "IntImplicit": int, "Float": float, "Bool": bool,
    "__and__": lambda a, b: a and b,
    "__or__": lambda a, b: a or b,
    "__is__": lambda a, b: a is b,
    "__isnot__": lambda a, b: a is not b,
    "__contains__": lambda items, one: one in items,
    "__range_length": lambda low, high, step: len(range(low, high, step)),
    "__derive_index": lambda at, start, step: start + at * step,
    "TupleConstruct": lambda *items: items,
    "NumToTensor": lambda one: one,
    "ScalarImplicit": lambda one: one,
    "ceil": lambda one: -int(-one // 1),
    "floor": lambda one: int(one // 1),
    "format": lambda text, *_: text,
    "warn": lambda *_: None,
    "is_scripting": lambda: True,
}  # fmt: skip
# With tensors in their lists they still work on the lists alone.
_ON_LISTS = frozenset({
    "append", "extend", "len", "__getitem__", "__is__", "__isnot__", "list", "slice", "add", "TupleConstruct",
    "__contains__",
})  # fmt: skip


def _annotate(machine: _Interpreter, code: ast.Call, values: Values, level: int) -> Any:
    """Return x of ``annotate(type, x)`` and ``unchecked_cast(type, x)``."""
    return machine.value(code.args[1], values, level)


def _getattr(machine: _Interpreter, code: ast.Call, values: Values, level: int) -> Any:
    """Return ``getattr(self, "0")``, written for names that are no identifiers."""
    owner, name = (machine.value(item, values, level) for item in code.args)
    return machine.attribute(owner, name)


def _number(kind: Callable[[Any], Any]) -> Callable[[_Interpreter, ast.Call, Values, int], Any]:
    def convert(machine: _Interpreter, code: ast.Call, values: Values, level: int) -> Any:
        value = machine.value(code.args[0], values, level)
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError("a number of what are several")
        if isinstance(value, Tensor) and value.is_floating_point():
            raise ValueError("a number that depends on the pixels")
        return kind(value)

    return convert


def _range(machine: _Interpreter, code: ast.Call, values: Values, level: int) -> Iterator[int]:
    return iter(_bounded(range(*(machine.value(item, values, level) for item in code.args))))


_SPECIAL: Mapping[str, Callable[[_Interpreter, ast.Call, Values, int], Any]] = {
    "annotate": _annotate, "unchecked_cast": _annotate, "getattr": _getattr, "range": _range, "int": _number(int),
    "float": _number(float), "bool": _number(bool), "uninitialized": lambda *_: None, "isinstance": lambda *_: False,
}  # fmt: skip
