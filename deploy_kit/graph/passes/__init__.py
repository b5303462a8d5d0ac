"""Graph passes: ONNX → ONNX, the same function in fewer steps. A pass is a file, named by its file name.

A pass that states an `order` is one of the default passes, which recipes call ``default``; all others run where a
recipe, a target or a scheme names them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import UnknownNameError, nearest

DEFAULT = "default"
"""Stands for all default passes in a recipe's table `simplify`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass did to a graph.

    Attributes:
        fired: Number of places that it changed.
        refused: (reason, number of places) where the pattern was present and its conditions did not hold.
    """

    fired: int
    refused: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of the catalogue.

    Attributes:
        apply: Changes the model in place.
        promise: Upper bound of the change of the outputs, relative to the largest |output|; 0 for bit-exact.
        order: Position among the default passes, the smallest first; None if it is not one of them.
    """

    apply: Callable[[ir.Model], Outcome]
    promise: float
    order: int | None = None


def default_passes() -> tuple[str, ...]:
    """List the default passes in the order in which they run."""
    orders = {name: CATALOGUE.get(name).order for name in CATALOGUE.names()}
    return tuple(name for _, name in sorted((order, name) for name, order in orders.items() if order is not None))


def resolve_names(names: Iterable[str]) -> tuple[str, ...]:
    """Replace ``default`` in a list of passes by the default passes.

    Raises:
        UnknownNameError: No pass has one of these names.
    """
    resolved: list[str] = []
    for name in names:
        if name not in (DEFAULT, *CATALOGUE.names()):
            raise UnknownNameError(
                f"no graph pass is called '{name}'", hint=nearest(name, (DEFAULT, *CATALOGUE.names()))
            )
        resolved += default_passes() if name == DEFAULT else (name,)
    return tuple(resolved)


def apply_passes(model: ir.Model, names: Iterable[str]) -> None:
    """Apply passes in order, without verifying the outputs: `simplify` does that, for what recipes name.

    Raises:
        UnknownNameError: No pass has one of these names.
    """
    for name in names:
        CATALOGUE.get(name).apply(model)


CATALOGUE: Catalogue[Pass] = Catalogue(__name__, "PASS", "graph pass")
