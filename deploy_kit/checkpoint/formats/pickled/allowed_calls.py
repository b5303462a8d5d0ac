"""What a pickle may call, by exact name, and our own functions that stand for those calls.

The list is short on purpose. A prefix such as ``torch.`` would let `torch.hub.load` through, which downloads and runs
code; every name here was read in the source of the library that writes it. A call that is not here is refused by its
name.
"""

from collections.abc import Callable
from typing import Any

from deploy_kit.checkpoint.formats.pickled.inert_values import Global, Record, Rules, key_of, refuse
from deploy_kit.checkpoint.formats.pickled.numpy_arrays import Array, array_of_buffer, dtype, scalar
from deploy_kit.checkpoint.formats.pickled.torch_tensors import (
    parameter,
    quantized_tensor,
    storage_of_bytes,
    tensor,
    tensor_of_new_type,
    unreadable,
)


def _typed_tensor(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch._tensor._rebuild_from_type_v2``, of a tensor with attributes: (function, class, …)."""
    function, _, inner, _ = arguments
    if not isinstance(function, Global) or str(function) not in _TENSOR_CALLS:
        raise refuse(function)
    return _TENSOR_CALLS[str(function)](tuple(inner), rules)


def encode(arguments: tuple[Any, ...], rules: Rules) -> bytes:
    """Stand for ``_codecs.encode``: how protocol 2 keeps bytes."""
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes that are not encoded as latin-1 text")
    rules.budget.take(len(text))
    return text.encode("latin-1")


def _no_bytes(arguments: tuple[Any, ...], _: Rules) -> bytes:
    """Stand for ``bytes()``: how protocol 2 keeps no bytes at all; never for a size."""
    if arguments:
        raise TypeError("bytes of something else")
    return b""


def _mapping(arguments: tuple[Any, ...], rules: Rules) -> dict[Any, Any]:
    """Stand for OrderedDict and dict: nothing, a dict, or pairs."""
    source = arguments[0] if arguments else ()
    if not isinstance(source, (dict, list, tuple)):
        raise TypeError(f"a dict of {type(source).__name__}")
    rules.budget.step(len(source))  # one opcode copies all of them, again and again if it is repeated
    if isinstance(source, dict):
        return dict(source)
    return {key_of(key): value for key, value in source}


def _default_mapping(_: tuple[Any, ...], __: Rules) -> dict[Any, Any]:
    """Stand for defaultdict: its factory is forgotten, its items follow."""
    return {}


def _sequence(arguments: tuple[Any, ...], rules: Rules) -> list[Any]:
    """Stand for list and deque: nothing, a list, or a tuple."""
    source = arguments[0] if arguments else ()
    if not isinstance(source, (list, tuple)):
        raise TypeError(f"a list of {type(source).__name__}")
    rules.budget.step(len(source))
    return list(source)


def _tuple(arguments: tuple[Any, ...], rules: Rules) -> tuple[Any, ...]:
    return tuple(_sequence(arguments, rules))


def _set(arguments: tuple[Any, ...], rules: Rules) -> Record:
    """Stand for set and frozenset: kept as a list, for nothing here asks whether they contain something."""
    record = Record("builtins.set")
    record.elements = _sequence(arguments, rules)
    return record


def _inert(kind: str) -> Callable[[tuple[Any, ...], Rules], Record]:
    """Return a function that stands for a call and keeps what it would get."""
    return lambda arguments, _: Record(kind, arguments)


_Call = Callable[[tuple[Any, ...], Rules], Any]
_TENSOR_CALLS: dict[str, _Call] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_of_new_type,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch._utils._rebuild_qtensor": quantized_tensor,
    "torch._utils._rebuild_sparse_tensor": unreadable("a sparse tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": unreadable("a meta tensor, without numbers"),
}
# What trainers and whole modules keep beside the weights: settings, paths, dates, transforms, loggers, norm layers as
# partial functions. What they are made from is all that is kept of them.
_INERT_CALLS = (
    "PIL.Image.Resampling", "builtins.getattr", "builtins.range", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "functools.partial", "logging.getLogger", "torch.device",
    "torch.serialization._get_layout", "torchvision.transforms.functional.InterpolationMode", "types.SimpleNamespace",
    *(f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in (
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"
    )),
)  # fmt: skip
CALLS: dict[str, _Call] = {
    **_TENSOR_CALLS,
    **{name: _inert(name) for name in _INERT_CALLS},
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "torch.storage._load_from_bytes": storage_of_bytes,
    # Lists that scripted modules keep, such as a convolution's padding.
    **{f"torch.jit._pickle.build_{kind}list": _sequence for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": lambda arguments, _: arguments[0],
    "torch.Size": _tuple,
    "numpy.dtype": dtype,
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), scalar),
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), lambda _, __: Array()
    ),
    **dict.fromkeys(("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), array_of_buffer),
    "_codecs.encode": encode,
    "builtins.bytes": _no_bytes,
    "builtins.dict": _mapping,
    "builtins.frozenset": _set,
    "builtins.list": _sequence,
    "builtins.set": _set,
    "builtins.tuple": _tuple,
    "collections.Counter": _mapping,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_mapping,
    "collections.deque": _sequence,
}
# Of the standard library, what else may be mentioned: types that modules and typed configurations keep as values.
MENTIONS = frozenset((
    "argparse.Namespace", "builtins.bool", "builtins.float", "builtins.int", "builtins.str", "builtins.type",
    "typing.Any", "typing.Dict", "typing.List", "typing.Optional", "typing.Tuple", "typing.Union", "types.NoneType",
))  # fmt: skip
