"""TorchScript → weights and the facts of its code. The code is read, never compiled or run.

`torch.jit.load` is not used: it hands untrusted bytes to a C++ parser and keeps operators that a forward pass would
call. Here the module objects are read by the pickle machine, and the code, which is written in a subset of Python, as a
syntax tree of which only straight lines are followed, as tracing writes them. Code with branches or loops (scripted
modules) states nothing.
"""

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import aten, stated_graph
from deploy_kit.checkpoint.formats.forward.torchscript_code import Code, TorchScriptForward
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged
from deploy_kit.checkpoint.formats.pickled import torch_file
from deploy_kit.checkpoint.formats.pickled.inert_values import Record, Unreadable
from deploy_kit.checkpoint.formats.zip_archive import Archive

_SOURCE = Source("file", "TorchScript code")
# They end what has no end; a DenseNet-264 as TorchScript has some 4,000 archive members.
_MAX_CODE, _MAX_NODES, _MAX_LEVELS, _MAX_MODULES = 4 << 20, 100_000, 32, 50_000
_MAX_ITEMS = 100_000  # of a list in lists, which doubling makes endless
_UNREAD = (SyntaxError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, MemoryError)


def is_torchscript(names: tuple[str, ...]) -> bool:
    """Return whether an archive with these members is one."""
    return any("/code/" in name for name in names) and any(name.endswith("/data.pkl") for name in names)


def read_torchscript(archive: Archive, budget: ReadLimits) -> Contents:
    """Read a TorchScript archive.

    Raises:
        CheckpointError: It holds no module with weights, or asks for code to be run.
    """
    root = torch_file.read_zip(archive, budget)
    if not isinstance(root, Record):
        raise CheckpointError("a TorchScript archive without a module")
    tensors = dict(_tensors(root, "", 0, [0]))
    if not tensors:
        raise CheckpointError(
            "a TorchScript module without weights: they were frozen into its code",
            hint="give the file as it was before torch.jit.freeze, or export that one to ONNX",
        )
    code = _code(archive, budget)
    facts = _facts(root, code.classes)
    remarks = (
        () if facts != ArchitectureFacts() else ("its code is no straight line of known operators: it states no facts",)
    )
    forward = TorchScriptForward(root, tensors, code)
    return Contents(kind="TorchScript", tensors=tensors, facts=facts, remarks=remarks, forward=forward)


def _tensors(module: Record, path: str, level: int, count: list[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of a module and of those in it; `count` is shared by all of them."""
    count[0] += 1
    if level > _MAX_LEVELS or count[0] > _MAX_MODULES:
        raise CheckpointError(f"refused: its module has more than {_MAX_LEVELS} levels or {_MAX_MODULES:,} parts")
    for name, value in module.attributes().items():
        below = f"{path}.{name}" if path else str(name)
        if isinstance(value, Unreadable):
            raise CheckpointError(f"'{below}' is {value.what}; plain floating-point weights are expected")
        if isinstance(value, Tensor):
            yield below, value
        elif isinstance(value, Record):
            yield from _tensors(value, below, level + 1, count)


def _facts(root: Record, classes: Mapping[str, ast.ClassDef]) -> ArchitectureFacts:
    """Read the code's facts; code that is no straight line of known operators states none."""
    try:
        tracer = _Tracer(classes)
        tracer.nodes.append(stated_graph.Node(op="input"))
        tracer.call(root, [_Place(0)], 0)
        return stated_graph.facts(tracer.nodes, _SOURCE)
    except _UNREAD:
        return ArchitectureFacts()


def _code(archive: Archive, budget: ReadLimits) -> Code:
    """Parse the archive's code.

    Raises:
        CheckpointError: There is more of it than any network has, or it is not written as TorchScript is.
    """
    classes: dict[str, ast.ClassDef] = {}
    functions: dict[str, ast.FunctionDef] = {}
    size = 0
    for name in archive.names:
        home, code, file = name.partition("/code/")
        if not code or not file.endswith(".py") or "/" in home:
            continue
        size += archive.size(name)
        if size > _MAX_CODE:
            raise CheckpointError(f"refused: it has more than {_MAX_CODE:,} bytes of code")
        module = file.removesuffix(".py").replace("/", ".")
        for entry in _parsed(bytes(archive.read(name)), name):
            if isinstance(entry, ast.ClassDef):
                classes[f"{module}.{entry.name}"] = entry
            elif isinstance(entry, ast.FunctionDef):
                functions[f"{module}.{entry.name}"] = entry
    constants = torch_file.read_zip(archive, budget, "constants") if _has_constants(archive) else ()
    return Code(classes, functions, tuple(constants) if isinstance(constants, (tuple, list)) else ())


def _parsed(text: bytes, name: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the code's texts
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise damaged(f"'{name}' inside it is not TorchScript's code") from error


def _has_constants(archive: Archive) -> bool:
    return any(name.endswith("/constants.pkl") for name in archive.names)


@dataclass(frozen=True)
class _Place:
    """Place of the node whose result a value is."""

    at: int


def _places(value: Any) -> Iterator[int]:
    waiting, n_seen = [value], 0
    while waiting:
        one, n_seen = waiting.pop(), n_seen + 1
        if n_seen > _MAX_ITEMS:
            raise ValueError("lists without end")
        if isinstance(one, _Place):
            yield one.at
        elif isinstance(one, list):
            waiting += reversed(one)


def _forward(module: ast.ClassDef) -> ast.FunctionDef:
    for entry in module.body:
        if isinstance(entry, ast.FunctionDef) and entry.name == "forward":
            return entry
    raise ValueError("a module without a forward pass")


def _assigned(target: ast.expr, value: Any) -> dict[str, Any]:
    """Return the names that an assignment binds; of several results the first is the map (a pool's second: indices)."""
    names = target.elts if isinstance(target, ast.Tuple) else [target]
    return {name.id: value if place == 0 else None for place, name in enumerate(names) if isinstance(name, ast.Name)}


class _Tracer:
    """Follows a traced forward pass through its modules and notes the operators.

    A value is a `_Place`, a module's record, a list of values, a number, or None for all else. What is None reads
    nothing and computes nothing known, so an operator on it adds no node: shapes, options, text.
    """

    def __init__(self, classes: Mapping[str, ast.ClassDef]) -> None:
        self.classes = classes
        self.nodes: list[stated_graph.Node] = []

    def call(self, module: Record, arguments: list[Any], level: int) -> Any:
        """Follow a module's ``forward`` and return its result."""
        if level > _MAX_LEVELS or len(self.nodes) > _MAX_NODES:
            raise ValueError("an endless forward pass")
        body = _forward(self.classes[module.kind])
        names = [argument.arg for argument in body.args.args]
        values = dict(zip(names, [module, *arguments], strict=False))
        for line in body.body:
            # Anything but assignments and one return is a branch or a loop, whose way depends on the input.
            if isinstance(line, ast.Assign):
                values |= _assigned(line.targets[0], self.value(line.value, values, level))
            elif isinstance(line, ast.Return) and line.value is not None:
                result = self.value(line.value, values, level)
                if not list(_places(result)):
                    raise ValueError("a result that does not come from the input")
                return result
            else:
                raise ValueError("no straight line")
        raise ValueError("no result")

    def value(self, code: ast.expr, values: dict[str, Any], level: int) -> Any:
        if isinstance(code, ast.Constant):
            return code.value
        if isinstance(code, ast.Name):
            return values.get(code.id)
        if isinstance(code, ast.Attribute):
            owner = self.value(code.value, values, level)
            return owner.attributes().get(code.attr) if isinstance(owner, Record) else None
        if isinstance(code, (ast.List, ast.Tuple)):
            return [self.value(item, values, level) for item in code.elts]
        if isinstance(code, ast.Call) and isinstance(code.func, ast.Attribute):
            return self.operator(code, code.func, values, level)
        if isinstance(code, ast.Call) and isinstance(code.func, ast.Name):
            return self.builtin(code.func.id, [self.value(item, values, level) for item in code.args])
        return None

    def builtin(self, name: str, arguments: list[Any]) -> Any:
        """Evaluate ``getattr(self, "0")``, written for names that are no identifiers, and ``annotate(type, x)``."""
        if name == "getattr" and isinstance(arguments[0], Record):
            return arguments[0].attributes().get(arguments[1])
        return arguments[1] if name == "annotate" else None

    def operator(self, code: ast.Call, function: ast.Attribute, values: dict[str, Any], level: int) -> Any:
        arguments = [self.value(item, values, level) for item in code.args]
        owner = self.value(function.value, values, level)
        # The second call of one module is written `forward1`, with the same body as `forward`.
        if isinstance(owner, Record) and function.attr.startswith("forward"):
            return self.call(owner, arguments, level + 1)
        reads = tuple(place for argument in arguments for place in _places(argument))
        # A size that is read from the map changes no number of it, as in `x.view(x.size(0), -1)`.
        if not reads or function.attr in aten.SIZES:
            return None
        plain = [tuple(one.shape) if isinstance(one, Tensor) else one for one in arguments]
        self.nodes.append(aten.node(function.attr, plain, reads))
        return _Place(len(self.nodes) - 1)
