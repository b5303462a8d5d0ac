"""Pickle → inert values. A small machine of our own: it imports nothing, calls nothing of the file, sets no attribute.

`pickle.Unpickler` is not used, even with a `find_class` of our own: it calls what that returns, sets attributes, hashes
any key and has no budget. Here classes become `Record`s that keep what would be their state; a call becomes a value
only where `allowed_calls.CALLS` has that exact name, and then our own function makes it; any other call is refused by
its name. Opcodes are read by the standard library's `pickletools`, and counted before they are carried out.
"""

import pickletools
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

from deploy_kit.checkpoint.formats.limits import damaged
from deploy_kit.checkpoint.formats.pickled.inert_values import Draft, Global, Record, Rules, key_of, refuse

_MAX_LONG_BITS = 4096  # Python prints no number of more than 4,300 digits: every one that is kept can be shown
# What `pickletools` and the functions of `allowed_calls` raise on opcodes that do not fit together.
_BROKEN = (
    ValueError, LookupError, TypeError, OverflowError, RuntimeError, AttributeError, BufferError,
)  # fmt: skip
# What Python 2 called them, and protocol 2 still does.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class ByteSource(Protocol):
    """Bytes read from front to back; neither method returns more than there is."""

    def read(self, n: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


def unpickle(source: ByteSource, rules: Rules) -> Any:
    """Read one pickle.

    Args:
        source: Bytes from the pickle's first on; left at the byte behind its STOP.
        rules: What stands for calls and persistent ids.

    Raises:
        CheckpointError: It would run code, asks for too much, or is damaged.
    """
    machine = _Machine(rules)
    step, operations = rules.budget.step, _OPERATIONS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged text
            for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", source)):
                step()
                operations[opcode.name](machine, argument)
    except _BROKEN as error:
        raise damaged(f"its pickle breaks off or makes no sense ({type(error).__name__}: {error})") from error
    return machine.result


class _Machine:
    """Stack, marks and memo of one pickle.

    A mark puts the stack aside and begins a new one, as in Python's own unpickler: no operation searches for it.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[tuple[str, str], Global] = {}
        self.result: Any = None

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def drop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_long(self, value: int) -> None:
        if value.bit_length() > _MAX_LONG_BITS:
            raise ValueError(f"a number of {value.bit_length()} bits")
        self.push(value)

    def push_text(self, value: Any) -> None:
        self.rules.budget.take(len(value))
        self.push(value)

    def memoize(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def tuple_of(self, n: int) -> None:
        items = tuple(self.stack[-n:])
        if len(items) < n:
            raise IndexError("a tuple of more than the stack holds")
        self.stack[-n:] = [items]

    def set_items(self, pairs: list[Any]) -> None:
        """Set items of a dict or a record of one; keys are hashed, and hashing some takes exponential time."""
        target = self.stack[-1]
        into = target.items if isinstance(target, Record) else target
        if not isinstance(into, dict) or len(pairs) % 2:
            raise TypeError(f"items set on {type(target).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            into[key_of(key)] = value

    def extend(self, items: list[Any]) -> None:
        """Append to a list or a record of one; the opcodes that made the items have paid for them."""
        target = self.stack[-1]
        into = target.elements if isinstance(target, Record) else target
        if not isinstance(into, list):
            raise TypeError(f"items appended to {type(target).__name__}")
        into.extend(items)

    def add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise TypeError(f"items added to {type(self.stack[-1]).__name__}")
        self.stack[-1].update(map(key_of, items))

    def find(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        known = self.names.get((module, name))
        if known is None:
            today = "range" if (module, name) == ("__builtin__", "xrange") else name
            known = self.names[module, name] = self.allowed(Global(_RENAMED.get(module, module), today))
        self.push(known)

    def allowed(self, mentioned: Global) -> Global:
        """Refuse what the standard library has and no checkpoint needs, even if it is only mentioned.

        A mention runs nothing here; a file that mentions `os.system` is told apart from one that was made by training.
        """
        standard = mentioned.module.partition(".")[0] in sys.stdlib_module_names
        if standard and str(mentioned) not in self.rules.mentions and str(mentioned) not in self.rules.calls:
            raise refuse(mentioned)
        return mentioned

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise TypeError("a call whose arguments are no tuple")
        known = self.rules.calls.get(str(function)) if isinstance(function, Global) else None
        if known is None:
            raise refuse(function)
        self.push(known(arguments, self.rules))

    def new(self, arguments: Any) -> None:
        """Make the record of an object whose constructor is not called (NEWOBJ); BUILD may give it a state."""
        kind = self.pop()
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise refuse(kind)
        if str(kind) in self.rules.calls:
            self.push(self.rules.calls[str(kind)](arguments, self.rules))
        else:
            self.push(Record(str(kind), arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, Draft):
            target.build(state, self.rules.budget)
        elif isinstance(target, (Global, int, float, str, bytes, tuple, type(None))):
            raise refuse(target)
        # Else one of our own values, whose state decides nothing here: the `_metadata` of a state dict.

    def persistent(self) -> None:
        self.push(self.rules.storage(self.pop()))

    def extension(self, code: int) -> None:
        raise refuse(f"extension {code}")

    def stop(self) -> None:
        self.result = self.pop()


_Operation = Callable[[_Machine, Any], None]
_NUMBERS = ("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_LONG_NUMBERS = ("INT", "LONG", "LONG1", "LONG4")  # of as many digits as the file likes
_TEXTS = (
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


def _dict_of_mark(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _extend_mark(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.extend(items)


def _set_items_mark(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.set_items(items)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.extend([value])


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.find(module, name)


def _persid(_: _Machine, text: str) -> None:
    raise refuse(f"persistent id {text!r}")


def _inst(_: _Machine, names: str) -> None:
    """Refuse INST, which calls a class as Python 2 did; no checkpoint was seen with it."""
    raise refuse(names.replace(" ", ".", 1))


def _obj(machine: _Machine, _: Any) -> None:
    """Refuse OBJ likewise."""
    raise refuse(machine.pop_mark()[0])


def _newobj_ex(machine: _Machine, _: Any) -> None:
    """Refuse NEWOBJ_EX, which passes keywords; no checkpoint was seen with it."""
    raise refuse(machine.stack[-3])


def _nothing(machine: _Machine, _: Any) -> None:
    """Pass over PROTO and FRAME: they tell how the rest is written, and it reads the same either way."""


_OPERATIONS: dict[str, _Operation] = {
    **dict.fromkeys(_NUMBERS, _Machine.push),
    **dict.fromkeys(_LONG_NUMBERS, _Machine.push_long),
    **dict.fromkeys(_TEXTS, _Machine.push_text),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "PUT": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "GET": lambda machine, place: machine.push(machine.memo[place]),
    "BINGET": lambda machine, place: machine.push(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.push(machine.memo[place]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": _dict_of_mark,
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(key_of, machine.pop_mark()))),
    "APPEND": _append,
    "APPENDS": _extend_mark,
    "SETITEM": _set_item,
    "SETITEMS": _set_items_mark,
    "ADDITEMS": lambda machine, _: machine.add_items(),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.new(machine.pop()),
    "NEWOBJ_EX": _newobj_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": _persid,
    "BINPERSID": lambda machine, _: machine.persistent(),
    "EXT1": _Machine.extension,
    "EXT2": _Machine.extension,
    "EXT4": _Machine.extension,
    "STOP": lambda machine, _: machine.stop(),
}
