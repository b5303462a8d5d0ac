"""What the numbers of an equalized graph stand for, kept in its file: they can be held against the float graph's.

    x = r·x' + m        x: of the graph before, x': of the file; r > 0 and m for each channel

Written by what gives channels another range (`int8/equalize.py`), read by what compares two graphs.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploy_kit.base.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

UNITS_KEY = "deploykit.units"
"""Metadata of an equalized file: JSON object, activation → base64 of r and then m, (2, C) little-endian float32."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """x = r·x' + m, per channel (C,)."""

    r: np.ndarray
    m: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Give x of x'."""
        return np.asarray(self.r * x + self.m)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Give x' of x."""
        return np.asarray((x - self.m) / self.r)

    def after(self, first: "Affine") -> "Affine":
        """Put two rewrites together: x = first.r·(r·x'' + m) + first.m."""
        return Affine(r=first.r * self.r, m=first.apply(self.m))


def record_affines(model: "ir.Model", new: Mapping[str, Affine]) -> None:
    """Note in a graph what its activations stand for from now on; what was noted before is rewritten once more."""
    known = affines_of(model)
    known |= {name: units.after(known[name]) if name in known else units for name, units in new.items()}
    model.metadata_props[UNITS_KEY] = json.dumps({name: _written(units) for name, units in known.items()})


def affines_of(model: "ir.Model") -> dict[str, Affine]:
    """Read what the activations of a graph stand for; those that are not named stand for themselves.

    Raises:
        InputError: It is noted and cannot be read.
    """
    try:
        noted = json.loads(model.metadata_props.get(UNITS_KEY, "{}"))
        return {str(name): _read(text) for name, text in noted.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"metadata '{UNITS_KEY}' is no table of units: {error}", hint="quantize again") from error


def _written(units: Affine) -> str:
    return base64.b64encode(np.stack([units.r, units.m]).astype("<f4").tobytes()).decode()


def _read(text: str) -> Affine:
    r, m = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(2, -1).astype(np.float64)
    return Affine(r=r, m=m)
