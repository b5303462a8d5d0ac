"""Graph passes: ONNX → ONNX, the same function in fewer steps. One file each; used when a recipe lists its name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from deploy_kit.base.catalogue import Catalogue


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass did to a graph.

    Attributes:
        fired: How many places it changed.
        refused: (reason, how many places) where its pattern was there and did not hold.
    """

    fired: int
    refused: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of the catalogue.

    Attributes:
        apply: Changes the model in place.
        promise: The most that the outputs may differ, relative to the largest |output|; 0 for bit-exact.
    """

    apply: Callable[[ir.Model], Outcome]
    promise: float


def apply_passes(model: ir.Model, names: Iterable[str]) -> None:
    """Apply passes in order, unverified: what an INT8 layout or a target wants on top of a verified graph.

    Raises:
        UnknownNameError: No pass has one of these names.
    """
    for name in names:
        CATALOGUE.get(name).apply(model)


CATALOGUE: Catalogue[Pass] = Catalogue(__name__, "PASS", "graph pass")
