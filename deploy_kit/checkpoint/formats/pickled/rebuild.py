"""Storages and tensors of a pickle, and our own functions that stand for torch's ``_rebuild_…``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled.arrays import Array, Unreadable, shape_of
from deploy_kit.checkpoint.formats.pickled.inert import Rules

DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    )
}  # fmt: skip
# Bytes of any kind; `_rebuild_tensor_v3` says which.
UNTYPED = "UntypedStorage"
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    UNTYPED: torch.uint8,
}
# Storage of a quantized tensor → the type of its numbers, and its bytes' type.
QUANTIZED = {
    "QInt8Storage": ("qint8", torch.int8),
    "QUInt8Storage": ("quint8", torch.uint8),
    "QInt32Storage": ("qint32", torch.int32),
    "QUInt4x2Storage": ("quint4x2", torch.uint8),
    "QUInt2x4Storage": ("quint2x4", torch.uint8),
}


@dataclass(eq=False, frozen=True)
class Storage:
    """Numbers in a row that tensors are views of.

    Attributes:
        numbers: 1-D.
        quantized: ``qint8``, … where the row holds quantized numbers.
    """

    numbers: Tensor
    quantized: str = ""


def tensor(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for ``torch._utils._rebuild_tensor`` and ``_v2``: (storage, offset, size, stride, …)."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return view(storage, offset, size, stride, rules.budget)


def view(storage: Storage, offset: Any, size: Any, stride: Any, budget: ReadLimits) -> "Tensor | Unreadable":
    """Make a tensor of a storage.

    Raises:
        ValueError: It would reach beyond the storage.
    """
    size, stride, (offset,) = shape_of(size), shape_of(stride), shape_of((offset,))
    if storage.quantized:
        return Unreadable(f"quantized ({storage.quantized})", size)
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else -1
    if last >= storage.numbers.numel():
        raise ValueError(f"a tensor of {list(size)} in a storage of {storage.numbers.numel()} numbers")
    budget.take(count * storage.numbers.element_size())
    return storage.numbers.as_strided(size, stride, offset if count else 0)


def tensor_v3(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for ``_rebuild_tensor_v3``: (untyped storage, offset, size, stride, requires_grad, hooks, dtype, …)."""
    storage, offset, size, stride, _, _, dtype = arguments[:7]
    if not isinstance(storage, Storage) or str(dtype) not in DTYPES:
        return Unreadable(f"a tensor of {dtype}", shape_of(size))
    kind = DTYPES[str(dtype)]
    whole = storage.numbers.numel() // kind.itemsize * kind.itemsize
    return view(Storage(storage.numbers[:whole].view(kind)), offset, size, stride, rules.budget)


def quantized(arguments: tuple[Any, ...], _: Rules) -> Unreadable:
    storage, _, size = arguments[:3]
    name = storage.quantized if isinstance(storage, Storage) and storage.quantized else "of an unknown type"
    return Unreadable(f"quantized ({name})", shape_of(size))


def fastai_tensor(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for fastai's ``_fa_rebuild_tensor``: (class, then what torch's own takes)."""
    return tensor(arguments[1:], rules)


def parameter(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``_rebuild_parameter`` and ``_with_state``: (tensor, …)."""
    if not isinstance(arguments[0], (Tensor, Unreadable)):
        raise TypeError("a parameter without a tensor")
    return arguments[0]


def device_tensor(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``_rebuild_device_tensor_from_numpy``: (array, dtype, device, requires_grad)."""
    return arguments[0] if isinstance(arguments[0], Array) else Unreadable("a tensor of another device")


def unreadable(what: str) -> Callable[[tuple[Any, ...], Rules], Unreadable]:
    def make(_: tuple[Any, ...], __: Rules) -> Unreadable:
        return Unreadable(what)

    return make


def storage_of_bytes(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch.storage._load_from_bytes``: how plain pickle keeps a tensor's storage."""
    (data,) = arguments
    if not isinstance(data, bytes):
        raise TypeError("a storage that is no bytes")
    return rules.nested(data)
