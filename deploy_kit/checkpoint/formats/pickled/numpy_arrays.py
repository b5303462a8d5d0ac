"""NumPy arrays and scalars of a pickle → values, bit for bit; arrays of objects stay unread."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled.inert_values import Record, Rules, Unreadable

_MAX_AXES = 64
_NUMBERS = re.compile(r"[<>|=]?([fiuc](?:1|2|4|8|16)|b1|\?)")


@dataclass(eq=False)
class Dtype:
    """A NumPy dtype: code such as ``f4`` and, once built, byte order."""

    code: str
    order: str = "="

    def build(self, state: Any, budget: ReadLimits) -> None:
        """Set the byte order from (version, order, subtype, names, fields, …)."""
        if state[1] in ("<", ">", "="):
            self.order = state[1]
        if state[2] is not None or state[3] is not None:
            self.code = "V"  # a structured dtype, whose rows are no plain numbers

    def numpy(self) -> "np.dtype[Any] | None":
        """Return the dtype of plain numbers, None of anything else."""
        match = _NUMBERS.fullmatch(self.code)
        return np.dtype(self.order + match[1]) if match else None


@dataclass(eq=False)
class Array:
    """A NumPy array; `value` is None until built, and stays so where it does not hold plain numbers."""

    value: "np.ndarray | None" = None
    shape: tuple[int, ...] = ()

    def build(self, state: Any, budget: ReadLimits) -> None:
        """Fill the array from (version, shape, dtype, Fortran order, raw bytes)."""
        _, shape, dtype, fortran, raw = state
        self.shape = shape_of(shape)
        kind = dtype.numpy() if isinstance(dtype, Dtype) else None
        if kind is not None:
            self.value = np.frombuffer(_bytes_of(raw), kind).reshape(self.shape, order="F" if fortran else "C")

    def tensor(self, budget: ReadLimits) -> "Tensor | Unreadable":
        """Copy it into a tensor of the machine's own byte order."""
        if self.value is None:
            return Unreadable("a NumPy array of objects", self.shape)
        budget.take(self.value.nbytes)
        try:
            return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder("="), order="C", copy=True))
        except TypeError:  # long doubles, dates and texts
            return Unreadable(f"a NumPy array of {self.value.dtype}", self.shape)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return a shape.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, (tuple, list)) or len(value) > _MAX_AXES:
        raise TypeError(f"a shape that is {type(value).__name__}")
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in value):
        raise TypeError("a shape that is no row of sizes")
    return tuple(value)


def scalar(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``numpy._core.multiarray.scalar``: (dtype, bytes)."""
    dtype, raw = (*arguments, b"")[:2]
    kind = dtype.numpy() if isinstance(dtype, Dtype) else None
    return Record("numpy.generic") if kind is None else np.frombuffer(_bytes_of(raw), kind, count=1)[0].item()


def dtype(arguments: tuple[Any, ...], _: Rules) -> Dtype:
    """Stand for ``numpy.dtype``: (code, …)."""
    if not isinstance(arguments[0], str):
        raise TypeError("a dtype that is no text")
    return Dtype(arguments[0])


def array_of_buffer(arguments: tuple[Any, ...], rules: Rules) -> Array:
    """Stand for ``numpy._core.numeric._frombuffer`` of pickle protocol 5: (bytes, dtype, shape, order)."""
    raw, dtype, shape, order = arguments
    if not isinstance(raw, (bytes, bytearray)):
        raise TypeError("an array that is no bytes")
    array = Array()
    array.build((1, shape, dtype, order == "F", bytes(raw)), rules.budget)
    return array


def _bytes_of(raw: Any) -> Any:
    """Return the bytes of an array; Python 2 kept them as latin-1 text."""
    return raw.encode("latin-1") if isinstance(raw, str) else raw
