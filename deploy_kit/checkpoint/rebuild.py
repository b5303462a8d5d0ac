"""What a pickle may call, by exact name, and our own functions that stand for those calls.

The list is short on purpose. A prefix such as ``torch.`` would let `torch.hub.load` through, which downloads and runs
code; every name here was read in the source of the library that writes it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy_kit.checkpoint.limits import Budget
from deploy_kit.checkpoint.unpickle import Global, Record, Rules, key_of, refuse

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
_MAX_AXES = 64
_NUMBERS = re.compile(r"[<>|=]?([fiuc](?:1|2|4|8|16)|b1|\?)")


@dataclass(eq=False, frozen=True)
class Storage:
    """Numbers in a row that tensors are views of.

    Attributes:
        numbers: 1-D.
        quantized: ``qint8``, … where the row holds quantized numbers.
    """

    numbers: Tensor
    quantized: str = ""


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

    def build(self, state: Any, budget: Budget) -> None:
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

    def build(self, state: Any, budget: Budget) -> None:
        """Take (version, shape, dtype, Fortran order, raw bytes)."""
        _, shape, dtype, fortran, raw = state
        self._fill(_shape(shape), dtype, "F" if fortran else "C", raw)

    def _fill(self, shape: tuple[int, ...], dtype: Any, order: Any, raw: Any) -> None:
        self.shape = shape
        kind = dtype.numpy() if isinstance(dtype, Dtype) else None
        if kind is not None:
            data = raw.encode("latin-1") if isinstance(raw, str) else raw
            self.value = np.frombuffer(data, kind).reshape(shape, order=order)

    def tensor(self, budget: Budget) -> "Tensor | Unreadable":
        """Copy it into a tensor of the machine's own byte order."""
        if self.value is None:
            return Unreadable("a NumPy array of objects", self.shape)
        budget.take(self.value.nbytes)
        return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder("="), order="C", copy=True))


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > _MAX_AXES:
        raise TypeError(f"a shape that is {type(value).__name__}")
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in value):
        raise TypeError("a shape that is no row of sizes")
    return tuple(value)


def _tensor(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for ``torch._utils._rebuild_tensor`` and ``_v2``: (storage, offset, size, stride, …)."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return view(storage, offset, size, stride, rules.budget)


def view(storage: Storage, offset: Any, size: Any, stride: Any, budget: Budget) -> "Tensor | Unreadable":
    """Make a tensor of a storage.

    Raises:
        ValueError: It would reach beyond the storage.
    """
    size, stride, (offset,) = _shape(size), _shape(stride), _shape((offset,))
    if storage.quantized:
        return Unreadable(f"quantized ({storage.quantized})", size)
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else -1
    if last >= storage.numbers.numel():
        raise ValueError(f"a tensor of {list(size)} in a storage of {storage.numbers.numel()} numbers")
    budget.take(count * storage.numbers.element_size())
    return storage.numbers.as_strided(size, stride, offset if count else 0)


def _tensor_v3(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for ``_rebuild_tensor_v3``: (untyped storage, offset, size, stride, requires_grad, hooks, dtype, …)."""
    storage, offset, size, stride, _, _, dtype = arguments[:7]
    if not isinstance(storage, Storage) or str(dtype) not in DTYPES:
        return Unreadable(f"a tensor of {dtype}", _shape(size))
    kind = DTYPES[str(dtype)]
    whole = storage.numbers.numel() // kind.itemsize * kind.itemsize
    return view(Storage(storage.numbers[:whole].view(kind)), offset, size, stride, rules.budget)


def _quantized_tensor(arguments: tuple[Any, ...], _: Rules) -> Unreadable:
    storage, _, size = arguments[:3]
    name = storage.quantized if isinstance(storage, Storage) and storage.quantized else "of an unknown type"
    return Unreadable(f"quantized ({name})", _shape(size))


def _typed_tensor(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch._tensor._rebuild_from_type_v2`` and fastai's copy: (function, class, arguments, state)."""
    function, _, inner, _ = arguments
    if not isinstance(function, Global) or str(function) not in _TENSOR_CALLS:
        raise refuse(function)
    return _TENSOR_CALLS[str(function)](tuple(inner), rules)


def _fastai_tensor(arguments: tuple[Any, ...], rules: Rules) -> "Tensor | Unreadable":
    """Stand for fastai's ``_fa_rebuild_tensor``: (class, then what torch's own takes)."""
    return _tensor(arguments[1:], rules)


def _parameter(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``_rebuild_parameter`` and ``_with_state``: (tensor, …)."""
    if not isinstance(arguments[0], (Tensor, Unreadable)):
        raise TypeError("a parameter without a tensor")
    return arguments[0]


def _parameter_of_array(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``_rebuild_device_tensor_from_numpy``: (array, dtype, device, requires_grad)."""
    return arguments[0] if isinstance(arguments[0], Array) else Unreadable("a tensor of another device")


def _unreadable(what: str) -> Callable[[tuple[Any, ...], Rules], Unreadable]:
    def make(_: tuple[Any, ...], __: Rules) -> Unreadable:
        return Unreadable(what)

    return make


def _from_bytes(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch.storage._load_from_bytes``: how plain pickle keeps a tensor's storage."""
    (data,) = arguments
    if not isinstance(data, bytes):
        raise TypeError("a storage that is no bytes")
    return rules.nested(data)


def _numpy_scalar(arguments: tuple[Any, ...], _: Rules) -> Any:
    dtype, raw = (*arguments, b"")[:2]
    kind = dtype.numpy() if isinstance(dtype, Dtype) else None
    if kind is None:
        return Record("numpy.generic")
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    return np.frombuffer(data, kind, count=1)[0].item()


def _numpy_dtype(arguments: tuple[Any, ...], _: Rules) -> Dtype:
    if not isinstance(arguments[0], str):
        raise TypeError("a dtype that is no text")
    return Dtype(arguments[0])


def _numpy_array(arguments: tuple[Any, ...], rules: Rules) -> Array:
    """Stand for ``numpy._core.numeric._frombuffer`` of pickle 5: (bytes, dtype, shape, order)."""
    raw, dtype, shape, order = arguments
    if not isinstance(raw, (bytes, bytearray)):
        raise TypeError("an array that is no bytes")
    array = Array()
    array.build((1, shape, dtype, order == "F", bytes(raw)), rules.budget)
    return array


def _encode(arguments: tuple[Any, ...], rules: Rules) -> bytes:
    """Stand for ``_codecs.encode``: how protocol 2 keeps bytes."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes that are not encoded as latin-1 text")
    rules.budget.take(len(text))
    return text.encode("latin-1")


def _mapping(arguments: tuple[Any, ...], rules: Rules) -> dict[Any, Any]:
    """Stand for OrderedDict and dict: nothing, a dict, or pairs."""
    source = arguments[0] if arguments else ()
    if not isinstance(source, (dict, list, tuple)):
        raise TypeError(f"a dict of {type(source).__name__}")
    rules.budget.step(len(source))
    if isinstance(source, dict):
        return dict(source)
    return {key_of(key): value for key, value in source}


def _default_mapping(_: tuple[Any, ...], __: Rules) -> dict[Any, Any]:
    """Stand for defaultdict: its factory is forgotten, its items follow."""
    return {}


def _sequence(arguments: tuple[Any, ...], rules: Rules) -> list[Any]:
    source = arguments[0] if arguments else ()
    if not isinstance(source, (list, tuple)):
        raise TypeError(f"a list of {type(source).__name__}")
    rules.budget.step(len(source))
    return list(source)


def _tuple(arguments: tuple[Any, ...], rules: Rules) -> tuple[Any, ...]:
    return tuple(_sequence(arguments, rules))


def _bytes(arguments: tuple[Any, ...], rules: Rules) -> bytes:
    """Stand for bytes and bytearray: nothing, bytes, or latin-1 text with its encoding; never a size."""
    if not arguments:
        return b""
    if isinstance(arguments[0], str):
        return _encode((*arguments, "latin-1")[:2], rules)
    if not isinstance(arguments[0], (bytes, bytearray)):
        raise TypeError("bytes of something else")
    rules.budget.take(len(arguments[0]))
    return bytes(arguments[0])


def _paddle_tensor(arguments: tuple[Any, ...], _: Rules) -> Any:
    """Stand for ``eval('data', {'data': array})``, how Paddle pickles its tensors; nothing is evaluated.

    Source: ``reduce_LoDTensor`` in Paddle's python/paddle/framework/io.py.
    """
    if len(arguments) == 2 and arguments[0] == "data" and isinstance(arguments[1], dict):
        value = arguments[1].get("data")
        if arguments[1].keys() == {"data"} and isinstance(value, Array):
            return value
    raise refuse("builtins.eval")


def _elements(arguments: tuple[Any, ...], rules: Rules) -> Record:
    """Stand for set and frozenset: kept as a list, for nothing here asks whether they contain something."""
    record = Record("builtins.set")
    record.elements = _sequence(arguments, rules)
    return record


def _path(arguments: tuple[Any, ...], rules: Rules) -> str:
    if not all(isinstance(part, str) for part in arguments):
        raise TypeError("a path that is no text")
    rules.budget.take(sum(map(len, arguments)))
    return "/".join(arguments)


def _inert(kind: str) -> Callable[[tuple[Any, ...], Rules], Record]:
    def make(arguments: tuple[Any, ...], _: Rules) -> Record:
        return Record(kind, arguments)

    return make


def _reconstructor(arguments: tuple[Any, ...], _: Rules) -> Record:
    """Stand for ``copyreg._reconstructor``: (class, its built-in ancestor, the ancestor's value)."""
    kind, _, value = arguments
    if not isinstance(kind, Global):
        raise TypeError("an object of no class")
    record = Record(str(kind))
    if isinstance(value, dict):
        record.items = value
    elif isinstance(value, list):
        record.elements = value
    return record


_Call = Callable[[tuple[Any, ...], Rules], Any]
_TENSOR_CALLS: dict[str, _Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _quantized_tensor,
    "torch._utils._rebuild_sparse_tensor": _unreadable("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unreadable("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("a meta tensor, without numbers"),
    "torch._utils._rebuild_wrapper_subclass": _unreadable("a tensor of a subclass of its own"),
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter_of_array,
    "fastai.torch_core._fa_rebuild_tensor": _fastai_tensor,
}
# Objects of these are kept as records: what they were made from is all that is asked of them.
_INERT_CALLS = (
    "builtins.complex", "builtins.getattr", "builtins.object", "builtins.range", "builtins.slice", "datetime.date",
    "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone", "decimal.Decimal",
    "fractions.Fraction", "functools.partial", "logging.getLogger", "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__generator_ctor", "numpy.random._pickle.__randomstate_ctor", "operator.attrgetter",
    "operator.itemgetter", "random.Random", "re._compile", "types.SimpleNamespace", "uuid.UUID", "uuid.SafeUUID",
    "torchvision.transforms.functional.InterpolationMode", "PIL.Image.Resampling",
    "torch.serialization._get_layout",
)  # fmt: skip
_PATHS = (f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in (
    "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"
))  # fmt: skip
CALLS: dict[str, _Call] = {
    **_TENSOR_CALLS,
    **{name: _inert(name) for name in _INERT_CALLS},
    **dict.fromkeys(_PATHS, _path),
    "torch._tensor._rebuild_from_type": _typed_tensor,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "fastai.torch_core._rebuild_from_type": _typed_tensor,
    "torch.storage._load_from_bytes": _from_bytes,
    **{f"torch.jit._pickle.build_{kind}list": _sequence for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": lambda arguments, _: arguments[0],
    "torch.jit._pickle.build_tensor_from_id": _unreadable("a tensor of another table"),
    "torch.Size": _tuple,
    "torch.device": _inert("torch.device"),
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda _, __: Array(),
    "numpy._core.multiarray._reconstruct": lambda _, __: Array(),
    "numpy.core.numeric._frombuffer": _numpy_array,
    "numpy._core.numeric._frombuffer": _numpy_array,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.dict": _mapping,
    "builtins.eval": _paddle_tensor,
    "builtins.frozenset": _elements,
    "builtins.list": _sequence,
    "builtins.set": _elements,
    "builtins.tuple": _tuple,
    "collections.Counter": _mapping,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_mapping,
    "collections.deque": _sequence,
    "copyreg._reconstructor": _reconstructor,
}
# Of the standard library, which else may be mentioned: types and functions that modules keep as attributes.
INERT = frozenset((
    "argparse.Namespace", "builtins.abs", "builtins.all", "builtins.any", "builtins.bool", "builtins.float",
    "builtins.int", "builtins.len", "builtins.max", "builtins.min", "builtins.round", "builtins.sorted",
    "builtins.str", "builtins.sum", "builtins.type", "math.ceil", "math.floor", "math.log", "math.sqrt",
    "operator.add", "operator.eq", "operator.ge", "operator.gt", "operator.le", "operator.lt", "operator.mul",
    "operator.sub", "operator.truediv", "typing.Any", "typing.Dict", "typing.List", "typing.Optional",
    "typing.Tuple", "typing.Union", "types.MethodType", "types.NoneType", "collections.abc.Mapping",
    "inspect.Parameter", "inspect.Signature", "inspect._empty", "inspect._ParameterKind", "threading.Event",
))  # fmt: skip
