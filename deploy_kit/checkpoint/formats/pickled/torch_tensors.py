"""Storages and tensors of a pickle, and our own functions that stand for torch's ``_rebuild_…``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled.inert_values import Rules, Unreadable
from deploy_kit.checkpoint.formats.pickled.numpy_arrays import shape_of

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
    "UntypedStorage": torch.uint8,  # bytes of a tensor that `_rebuild_tensor_v3` would make
}
# Storage of a quantized tensor → the type of its numbers, and its bytes' type.
QUANTIZED = {
    "QInt8Storage": ("qint8", torch.int8),
    "QUInt8Storage": ("quint8", torch.uint8),
    "QInt32Storage": ("qint32", torch.int32),
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
    """Stand for ``torch._utils._rebuild_tensor`` and ``_v2``: (storage, offset, size, stride, …, …, metadata)."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    made = view(storage, offset, size, stride, rules.budget)
    # A lazily negated tensor is kept as its storage and a bit; a legacy file's storage has no numbers yet.
    metadata = arguments[6] if len(arguments) > 6 else None
    if isinstance(made, Tensor) and isinstance(metadata, dict) and metadata.get("neg"):
        return torch._neg_view(made)
    return made


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
    # A stride of 0 lets a small storage be a tensor of any size: the view costs nothing, its first copy all of it.
    budget.take(count * storage.numbers.element_size())
    return storage.numbers.as_strided(size, stride, offset if count else 0)


def tensor_of_new_type(arguments: tuple[Any, ...], _: Rules) -> Unreadable:
    """Stand for ``_rebuild_tensor_v3``, of float8 and wide unsigned numbers: (storage, offset, size, …, dtype, …)."""
    return Unreadable(f"a tensor of {arguments[6]}", shape_of(arguments[2]))


def quantized_tensor(arguments: tuple[Any, ...], _: Rules) -> Unreadable:
    """Stand for ``_rebuild_qtensor``: (storage, offset, size, …)."""
    storage, _, size = arguments[:3]
    name = storage.quantized if isinstance(storage, Storage) and storage.quantized else "of an unknown type"
    return Unreadable(f"quantized ({name})", shape_of(size))


def parameter(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``_rebuild_parameter`` and ``_with_state``: (tensor, …)."""
    if not isinstance(arguments[0], (Tensor, Unreadable)):
        raise TypeError("a parameter without a tensor")
    return arguments[0]


def unreadable(what: str) -> Callable[[tuple[Any, ...], Rules], Unreadable]:
    """Return a function that stands for a call and keeps nothing but what the tensor is."""
    return lambda _, __: Unreadable(what)


def storage_of_bytes(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch.storage._load_from_bytes``: how plain pickle keeps a tensor's storage."""
    (data,) = arguments
    if not isinstance(data, bytes):
        raise TypeError("a storage that is no bytes")
    return rules.nested(data)
