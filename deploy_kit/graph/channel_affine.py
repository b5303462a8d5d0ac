"""Per-channel scale and shift of an equalized graph, kept in its file, so that it can be compared with the float graph.

    x = r·x' + m        x: value in the float graph, x': value in the file; r > 0 and m for each channel

Written by what gives channels another range (`quantization.int8.equalize`), read by what compares two graphs.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.graph import onnx_file

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
        """Compute x from x'."""
        return np.asarray(self.r * x + self.m)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Compute x' from x."""
        return np.asarray((x - self.m) / self.r)

    def after(self, first: "Affine") -> "Affine":
        """Compose with an earlier rewrite: x = first.r·(r·x'' + m) + first.m."""
        return Affine(r=first.r * self.r, m=first.apply(self.m))


def record_affines(model: "ir.Model", new: Mapping[str, Affine]) -> None:
    """Record new scales and shifts of activations in a graph's metadata, composed with those recorded before."""
    known = affines_of(model)
    known |= {name: units.after(known[name]) if name in known else units for name, units in new.items()}
    model.metadata_props[UNITS_KEY] = json.dumps({name: _written(units) for name, units in known.items()})


def affines_of(model: "ir.Model") -> dict[str, Affine]:
    """Read the recorded scales and shifts of a graph's activations; an activation without one is unchanged.

    Raises:
        InputError: The record cannot be read.
    """
    try:
        recorded = onnx_file.metadata(model, UNITS_KEY, "is no table of units") or {}
        return {str(name): _read(text) for name, text in recorded.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"metadata '{UNITS_KEY}' is no table of units: {error}", hint="quantize again") from error


def _written(units: Affine) -> str:
    return base64.b64encode(np.stack([units.r, units.m]).astype("<f4").tobytes()).decode()


def _read(text: str) -> Affine:
    r, m = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(2, -1).astype(np.float64)
    return Affine(r=r, m=m)
