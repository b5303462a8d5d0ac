"""Engines: typed ONNX graph → something that runs. One file each; precision is in the graph, never in a flag here.

Everything in this folder runs inside a worker process and needs the standard library, numpy and the engine's own
package, nothing else: the same files run on a small device.

A third party registers an engine under the entry points ``deploy_kit.engines``. On a device, its distribution must be
installed beside the engine's package.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import RecipeError
from deploy_kit.base.progress import ProgressCallback
from deploy_kit.records.artifacts import BuiltFor, Proof
from deploy_kit.records.layer_times import Trace

Batches: TypeAlias = Iterable[np.ndarray]
"""Batches of images, (N, C, H, W) float32 each."""


class Session(Protocol):
    """A loaded engine: ``bind`` copies the input in, ``run`` computes, ``fetch`` copies the output out.

    ``run`` returns only when the device has finished, so that a stopwatch around it measures the computation, and one
    around all three the whole.

    Attributes:
        batch: Images per run; 0 where the batch size is open.
        settings: Settings that the engine really uses, e.g. ``{"threads": "2"}``. A session on a GPU names it in a
            setting ``gpu``, or has ``CUDA`` or ``GPU`` in the name of its device or provider.
    """

    batch: int
    settings: Mapping[str, str]

    def bind(self, image: np.ndarray) -> None:
        """Copy the input to the device: (N, C, H, W) float32."""

    def run(self) -> None:
        """Compute; return when the device has finished."""

    def fetch(self) -> np.ndarray:
        """Copy the logits from the device: (N, classes) float32."""


@runtime_checkable
class DeviceTimed(Protocol):
    """A session whose device times its own work, independently of the host that waits for it."""

    @property
    def device_ms(self) -> Mapping[str, float]:
        """Device time in ms of the last ``bind``, ``run`` and ``fetch``: ``h2d``, ``compute``, ``d2h``."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine of the catalogue.

    Attributes:
        package: Import name of the package that it needs.
        file_name: Name of the built engine's main file, e.g. ``model.xml``.
        options: Record class of its options; each has a default.
        build: (ONNX file, folder to write to, options, on_progress) → passport of an engine that fits only one version
            and GPU, else None; it writes `file_name` to the folder.
        prove_precision: (built engine, options) → the types that it computes in.
        open_session: (built engine, options) → a session.
        why_unavailable: () → why it cannot run on this machine; empty if it can.
        cross_builds: Whether it builds for a device other than the machine it runs on.
        profile: (built engine, options, input (N, C, H, W) float32, runs) → the time of each layer; None where the
            engine does not time its layers.
        observe: (built engine, options, tensor names, batches) → for each batch the output and these tensors of the
            graph. In an engine that is an ONNX file, the tensors are outputs of the file. None where the engine cannot
            show tensors.
        place: (accelerator of a device, e.g. ``cuda:0``) → options that make it compute there; None where it cannot. An
            engine without `place` computes in one place, whatever accelerator the device has.
        typed: Whether it computes in the graph's own types. If not, its runtime may widen half precision.
        saturates: Whether sums of integers may saturate in it where a processor adds in 16 bits.
        converter: Import name of the package that makes its files from ONNX, where that is another one.
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
    saturates: bool = False
    converter: str = ""
    profile: Callable[[Path, Any, np.ndarray, int], Trace] | None = None
    observe: Callable[[Path, Any, tuple[str, ...], Batches], Iterator[tuple[np.ndarray, ...]]] | None = None
    place: Callable[[str], dict[str, Any] | None] | None = None

    def versions_in(self, versions: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """Select the rows of the engine's library and converter; a distribution may be named with hyphens.

        Args:
            versions: (library, version) of a machine.
        """
        return tuple(row for row in versions if row[0].replace("-", "_") in (self.package, self.converter))

    def version_in(self, versions: tuple[tuple[str, str], ...]) -> str:
        """Return the version of the engine's library; empty where it is not among them.

        Args:
            versions: (library, version) of a machine.
        """
        return next((version for name, version in versions if name.replace("-", "_") == self.package), "")


MOST_THREADS = 1024
"""Threads that an engine may be asked for: runtimes start as many as they are told, and would not come back."""


def verify_threads(engine: str, threads: int) -> None:
    """Refuse a number of threads that no machine has.

    Raises:
        RecipeError: It is negative, or above `MOST_THREADS`.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise RecipeError(f"engine '{engine}'.threads: expected 0 to {MOST_THREADS:,}, found {threads:,}")


CATALOGUE: Catalogue[Engine] = Catalogue(__name__, "ENGINE", "engine")
