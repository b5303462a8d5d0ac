"""What a candidate is: a file, how it is made, and the engine it runs on. The lists are in `stock` and `ours`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Unavailable(Exception):  # noqa: N818  # no error: something this machine has not
    """Something that a candidate needs is not on this machine; the text says what."""


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A file made by stock tools from the stock export; `recipe` is a name of `stock.RECIPES`."""

    recipe: str


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A file made by deploykit.

    Attributes:
        passes: Graph passes of `simplify`, in order.
        scheme: Scheme of `quantize`; None leaves the graph in float32.
        options: The scheme's options.
    """

    passes: tuple[str, ...]
    scheme: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row of the tables.

    Attributes:
        name: ``WHAT@ENGINE``, for ``--only`` and the tables.
        file: How its file is made.
        engine: An engine of deploykit's catalogue, or ``torch``.
        options: The engine's options, threads aside.
        simulated: Whether the engine only computes the graph as it stands, in place of the one it is made for: for
            accuracy, never timed.
    """

    name: str
    file: Stock | Ours
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False

    @property
    def ours(self) -> bool:
        """Whether deploykit made the file."""
        return isinstance(self.file, Ours)

    @property
    def int8(self) -> bool:
        """Whether the file was quantized to 8 bits."""
        if isinstance(self.file, Ours):
            return (self.file.scheme or "").startswith("int8")
        return self.file.recipe.startswith(("static", "nncf"))
