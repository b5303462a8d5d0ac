"""NumPy arrays and scalars of a pickle → values, bit for bit; arrays of objects stay unread."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled.inert import Record, Rules

_MAX_AXES = 64
_NUMBERS = re.compile(r"[<>|=]?([fiuc](?:1|2|4|8|16)|b1|\?)")


@dataclass(eq=False, frozen=True)
class Unreadable:
    """A tensor that is known to be there and cannot be used.

    Attributes:
        what: What it is, e.g. ``quantized (qint8)``.
        shape: Its shape.
    """

    what: str
    shape: tuple[int, ...] = ()


@dataclass(eq=False)
class Dtype:
    """A NumPy dtype: code such as ``f4`` and, once built, byte order."""

    code: str
    order: str = "="

    def build(self, state: Any, budget: ReadLimits) -> None:
        """Take the byte order from (version, order, subtype, names, fields, …)."""
        if state[1] in ("<", ">", "="):
            self.order = state[1]
        if state[2] is not None or state[3] is not None:
            self.code = "V"

    def numpy(self) -> "np.dtype[Any] | None":
        """Give the dtype of plain numbers, None of anything else."""
        match = _NUMBERS.fullmatch(self.code)
        return np.dtype(self.order + match[1]) if match else None


@dataclass(eq=False)
class Array:
    """A NumPy array; `value` is None until built, and stays so where it does not hold plain numbers."""

    value: "np.ndarray | None" = None
    shape: tuple[int, ...] = ()

    def build(self, state: Any, budget: ReadLimits) -> None:
        """Take (version, shape, dtype, Fortran order, raw bytes)."""
        _, shape, dtype, fortran, raw = state
        self._fill(shape_of(shape), dtype, "F" if fortran else "C", raw)

    def _fill(self, shape: tuple[int, ...], dtype: Any, order: Any, raw: Any) -> None:
        self.shape = shape
        kind = dtype.numpy() if isinstance(dtype, Dtype) else None
        if kind is not None:
            data = raw.encode("latin-1") if isinstance(raw, str) else raw
            self.value = np.frombuffer(data, kind).reshape(shape, order=order)

    def tensor(self, budget: ReadLimits) -> "Tensor | Unreadable":
        """Copy it into a tensor of the machine's own byte order."""
        if self.value is None:
            return Unreadable("a NumPy array of objects", self.shape)
        budget.take(self.value.nbytes)
        return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder("="), order="C", copy=True))


def shape_of(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > _MAX_AXES:
        raise TypeError(f"a shape that is {type(value).__name__}")
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in value):
        raise TypeError("a shape that is no row of sizes")
    return tuple(value)


def scalar(arguments: tuple[Any, ...], _: Rules) -> Any:
    dtype, raw = (*arguments, b"")[:2]
    kind = dtype.numpy() if isinstance(dtype, Dtype) else None
    if kind is None:
        return Record("numpy.generic")
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    return np.frombuffer(data, kind, count=1)[0].item()


def dtype(arguments: tuple[Any, ...], _: Rules) -> Dtype:
    if not isinstance(arguments[0], str):
        raise TypeError("a dtype that is no text")
    return Dtype(arguments[0])


def array(arguments: tuple[Any, ...], rules: Rules) -> Array:
    """Stand for ``numpy._core.numeric._frombuffer`` of pickle 5: (bytes, dtype, shape, order)."""
    raw, dtype, shape, order = arguments
    if not isinstance(raw, (bytes, bytearray)):
        raise TypeError("an array that is no bytes")
    array = Array()
    array.build((1, shape, dtype, order == "F", bytes(raw)), rules.budget)
    return array
