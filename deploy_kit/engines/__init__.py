"""Engines: typed ONNX graph → something that runs. One file each; precision is in the graph, never in a flag here.

Everything in this folder runs inside a worker process and needs the standard library, numpy and the engine's own
package, nothing else: the same files run on a small device.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.progress import ProgressCallback
from deploy_kit.records.artifacts import BuiltFor, Proof
from deploy_kit.records.layer_times import Trace

Batches: TypeAlias = Iterable[np.ndarray]


class Session(Protocol):
    """A loaded engine: ``bind`` copies in, ``run`` computes, ``fetch`` copies out.

    ``run`` returns only when the device has finished, so a stopwatch around it measures compute, and one around all
    three measures the whole.

    Attributes:
        batch: Images per run; 0 where any number is taken.
        settings: What the engine was really set to, e.g. ``{"threads": "2"}``.
    """

    batch: int
    settings: Mapping[str, str]

    def bind(self, image: np.ndarray) -> None:
        """Copy the input in: (N, C, H, W) float32."""

    def run(self) -> None:
        """Compute; return when the device has finished."""

    def fetch(self) -> np.ndarray:
        """Copy the logits out: (N, classes) float32."""


@runtime_checkable
class DeviceTimed(Protocol):
    """A session whose device times its own work, apart from the host that waits for it."""

    @property
    def device_ms(self) -> Mapping[str, float]:
        """What the device worked on the last ``bind``, ``run`` and ``fetch``, in ms: ``h2d``, ``compute``, ``d2h``."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine of the catalogue.

    Attributes:
        package: What must be importable.
        file_name: Of the built engine, e.g. ``model.xml``.
        options: Record class of its options, each with a default.
        build: (onnx file, folder to write into, options, on_progress) → what it fits, or None; writes `file_name`.
        prove_precision: (built engine, options) → what it computes in.
        open_session: (built engine, options) → a session.
        why_unavailable: Why it cannot run on this machine; empty if it can.
        cross_builds: Whether it builds for a device that is not here.
        profile: (built engine, options, input (N, C, H, W) float32, runs) → the time of each layer; None where the
            engine does not say.
        observe: (built engine, options, tensors, batches (N, C, H, W)) → for each batch the output and these tensors
            within the graph, which in an engine that is an ONNX file are outputs of it; None where the engine cannot.
        place: (a device's accelerator, e.g. ``cuda:0``) → the options that make it compute there; None where it cannot.
            An engine without it computes in one place, whatever the device has.
        typed: Whether it computes in the graph's own types. Where False, the runtime may widen half precision.
    """

    package: str
    file_name: str
    options: type[Any]
    build: Callable[[Path, Path, Any, ProgressCallback], BuiltFor | None]
    prove_precision: Callable[[Path, Any], Proof]
    open_session: Callable[[Path, Any], Session]
    why_unavailable: Callable[[], str]
    cross_builds: bool = False
    typed: bool = False
    profile: Callable[[Path, Any, np.ndarray, int], Trace] | None = None
    observe: Callable[[Path, Any, tuple[str, ...], Batches], Iterator[tuple[np.ndarray, ...]]] | None = None
    place: Callable[[str], dict[str, Any] | None] | None = None

    def versions_in(self, versions: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """Pick the engine's own from (library, version) rows: a distribution may be named with hyphens."""
        return tuple(row for row in versions if row[0].replace("-", "_") == self.package)

    def version_in(self, versions: tuple[tuple[str, str], ...]) -> str:
        """Give the version of the engine's library; empty where it is not among them."""
        return next((version for _, version in self.versions_in(versions)), "")


CATALOGUE: Catalogue[Engine] = Catalogue(__name__, "ENGINE", "engine")
