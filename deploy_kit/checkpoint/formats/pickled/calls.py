"""What a pickle may call, by exact name, and our own functions that stand for those calls.

The list is short on purpose. A prefix such as ``torch.`` would let `torch.hub.load` through, which downloads and runs
code; every name here was read in the source of the library that writes it.
"""

from collections.abc import Callable
from typing import Any

from deploy_kit.checkpoint.formats.pickled.arrays import Array, array, dtype, scalar
from deploy_kit.checkpoint.formats.pickled.inert import Global, Record, Rules, key_of, refuse
from deploy_kit.checkpoint.formats.pickled.rebuild import (
    device_tensor,
    fastai_tensor,
    parameter,
    quantized,
    storage_of_bytes,
    tensor,
    tensor_v3,
    unreadable,
)


def _typed_tensor(arguments: tuple[Any, ...], rules: Rules) -> Any:
    """Stand for ``torch._tensor._rebuild_from_type_v2`` and fastai's copy: (function, class, arguments, state)."""
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
        return encode((*arguments, "latin-1")[:2], rules)
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
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch._utils._rebuild_qtensor": quantized,
    "torch._utils._rebuild_sparse_tensor": unreadable("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": unreadable("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": unreadable("a meta tensor, without numbers"),
    "torch._utils._rebuild_wrapper_subclass": unreadable("a tensor of a subclass of its own"),
    "torch._utils._rebuild_device_tensor_from_numpy": device_tensor,
    "fastai.torch_core._fa_rebuild_tensor": fastai_tensor,
}
# Objects of these are kept as records: what they were made from is all that is asked of them.
_INERT_CALLS = (
    "PIL.Image.Resampling", "builtins.complex", "builtins.getattr", "builtins.object", "builtins.range",
    "builtins.slice", "collections.ChainMap", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "functools.partial",
    "logging.getLogger", "numpy.random._pickle.__bit_generator_ctor", "numpy.random._pickle.__generator_ctor",
    "numpy.random._pickle.__randomstate_ctor", "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "operator.attrgetter", "operator.itemgetter", "random.Random", "re._compile",
    "torch.serialization._get_layout", "torchvision.transforms.functional.InterpolationMode",
    "types.SimpleNamespace", "uuid.SafeUUID", "uuid.UUID",
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
    "torch.storage._load_from_bytes": storage_of_bytes,
    **{f"torch.jit._pickle.build_{kind}list": _sequence for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": lambda arguments, _: arguments[0],
    "torch.jit._pickle.build_tensor_from_id": unreadable("a tensor of another table"),
    "torch.Size": _tuple,
    "torch.device": _inert("torch.device"),
    "numpy.dtype": dtype,
    "numpy.core.multiarray.scalar": scalar,
    "numpy._core.multiarray.scalar": scalar,
    "numpy.core.multiarray._reconstruct": lambda _, __: Array(),
    "numpy._core.multiarray._reconstruct": lambda _, __: Array(),
    "numpy.core.numeric._frombuffer": array,
    "numpy._core.numeric._frombuffer": array,
    "_codecs.encode": encode,
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
