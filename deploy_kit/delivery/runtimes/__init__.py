"""What a bundle needs of each engine. A file here is an engine of the same name that can be packed.

A third party registers one under the entry points ``deploy_kit.runtimes``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.records.artifacts import Artifact

FILES = Path(__file__).parents[1] / "files"
"""What is copied into bundles as it is."""


@dataclass(frozen=True, kw_only=True)
class VersionNeed:
    """Versions of an engine's package that can run its file.

    Attributes:
        minimum: Oldest version.
        exact: Whether it is the only one.
        source: Where that is known from.
    """

    minimum: str
    exact: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class PackedRuntime:
    """One engine that can be packed.

    Attributes:
        program: ``engine.py`` of the bundle: ``open_engine(path, manifest, options)`` returns (N, …) → (N, K).
        verify: Refuses a file, before native code reads it, that would work without end; the worker that then loads it
            is bounded in memory and time.
        needs: (engine's passport, ONNX graph that it was built from, version that built it) → versions that run it.
        triton: Fields of a Triton ``config.pbtxt`` that name the backend, e.g. ``backend: "openvino"``; empty where
            Triton has none.
        cpp: Folder of the C++ program for it; None where there is none.
        packs_graph: Whether the ONNX graph is packed beside the engine, to build it again for another version or GPU.
    """

    program: Path
    needs: Callable[[Artifact, Path, str], VersionNeed]
    verify: Callable[[Path], None] = lambda path: None
    triton: str = ""
    cpp: Path | None = None
    packs_graph: bool = False


CATALOGUE: Catalogue[PackedRuntime] = Catalogue(__name__, "RUNTIME", "engine that can be packed")
