"""What a pickle's contents are kept as: names, records of what objects would be made from, tensors that stay unread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.limits import ReadLimits

SAVE_TENSORS = "save the tensors alone where the model is at hand: torch.save(model.state_dict(), 'weights.pth')"
_MAX_KEY_BITS = 60  # hash(n) == n below that: no two of them are made to collide at will
_MAX_TUPLE_KEY = 16


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle mentions, e.g. ``torch._utils`` ``_rebuild_tensor_v2``; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """What an object of the file would be made from.

    Attributes:
        kind: Its class, e.g. ``argparse.Namespace``.
        args: Arguments that its constructor would get.
        state: State that its ``__setstate__`` would get.
        items: Its items, where it is some kind of dict.
        elements: Its elements, where it is some kind of list.
    """

    __slots__ = ("args", "elements", "items", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...] = ()) -> None:
        """Start without a state."""
        self.kind, self.args = kind, args
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.elements: list[Any] = []

    def attributes(self) -> Mapping[Any, Any]:
        """Return the attributes by name, from ``__dict__`` and ``__slots__`` alike."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


@dataclass(eq=False, frozen=True)
class Unreadable:
    """A tensor that is known to be there and cannot be used.

    Attributes:
        what: What it is, e.g. ``quantized (qint8)``.
        shape: Its shape.
    """

    what: str
    shape: tuple[int, ...] = ()


@runtime_checkable
class Draft(Protocol):
    """A value that one of our own functions began and that BUILD completes."""

    def build(self, state: Any, budget: ReadLimits) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the machine may do beyond plain data.

    Attributes:
        calls: Name → our own function (arguments, rules) that stands for a call of it.
        mentions: Names of the standard library that may be mentioned and never called.
        storage: Resolves a persistent id.
        nested: Reads a checkpoint that lies in a pickle as bytes.
        budget: Budget shared by all pickles of a file.
    """

    calls: Mapping[str, Callable[[tuple[Any, ...], "Rules"], Any]]
    mentions: frozenset[str]
    storage: Callable[[Any], Any]
    nested: Callable[[bytes], Any]
    budget: ReadLimits


def key_of(value: Any) -> Any:
    """Return a value as a dict's key, if hashing it is cheap: a tuple of tuples hashes in exponential time.

    Raises:
        TypeError: It is not.
    """
    if isinstance(value, tuple):
        if len(value) > _MAX_TUPLE_KEY or any(isinstance(item, tuple) for item in value):
            raise TypeError("a nested or long tuple as a key")
        for item in value:
            key_of(item)
    elif isinstance(value, int) and value.bit_length() > _MAX_KEY_BITS:
        raise TypeError("a huge number as a key")
    return value


def refuse(name: object) -> CheckpointError:
    """Make the error of a file that asks to run `name`."""
    if isinstance(name, Record):
        name = name.kind
    elif not isinstance(name, (str, Global)):
        name = type(name).__name__  # its text may be endless
    return CheckpointError(
        f"refused: it holds more than tensors, and reading it would run its code: its pickle asks for '{name}'"[:300],
        hint=SAVE_TENSORS,
    )
