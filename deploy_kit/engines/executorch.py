"""ExecuTorch on the CPU: the graph as a torch module, lowered to XNNPACK. The engine is one program file (``.pte``).

Scales and zero points of an INT8 graph are its own: a Q/DQ pair becomes the pair that XNNPACK's partitioner fuses. What
XNNPACK does not take is left to ExecuTorch's portable kernels, and is counted in the proof.
"""

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import BuildError, InputError
from deploy_kit.base.lazy import install_line, need, present
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.engines import Engine, Session, _pte, verify_threads
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Proof

_BY, _OLDEST = "engine 'executorch'", "1.5"
_STEPS = ("exporting by torch", "lowering to XNNPACK", "writing the program", "loading it")


@dataclass(frozen=True, kw_only=True)
class ExecuTorchOptions:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 uses every core that this process may use.
    """

    threads: int = 0

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: No machine has so many threads.
        """
        verify_threads("executorch", self.threads)


def build(
    onnx_file: Path, folder: Path, options: ExecuTorchOptions, on_progress: ProgressCallback = no_progress
) -> None:
    """Export the graph by torch, lower it to XNNPACK (a minute for a DenseNet-121), and load the result once.

    Raises:
        BuildError: The graph has what torch is not told to compute or ExecuTorch refuses, or this is a device.
        MissingPackageError: ExecuTorch or torch is not installed.
    """
    need("executorch", by=_BY)
    torch = need("torch", by=_BY)
    if importlib.util.find_spec("deploy_kit.graph") is None:
        raise BuildError(
            "'executorch' lowers a graph on the host, not on a device",
            hint="deploykit build --engine executorch -o model.pte, then deploykit check model.pte --device NAME",
        )
    from deploy_kit.graph import onnx_file as onnx_files
    from deploy_kit.graph.torch_graph import TorchModule

    def tell(step: int) -> None:
        on_progress(ProgressEvent(stage="build", text=_STEPS[step], done=step, total=len(_STEPS)))

    model = onnx_files.load(onnx_file)
    exir = need("executorch.exir", by=_BY)
    partitioner = need("executorch.backends.xnnpack.partition.xnnpack_partitioner", by=_BY).XnnpackPartitioner()
    refused = (RuntimeError, ValueError, TypeError, AssertionError, exir.error.ExportError, exir.error.InternalError)
    try:
        module, shape = TorchModule(model).eval(), onnx_files.specs(onnx_files.inputs(model))[0].shape
        with torch.no_grad():
            tell(0)
            exported = torch.export.export(module, (torch.zeros(shape),), strict=False)
            tell(1)
            lowered = exir.to_edge_transform_and_lower(exported, partitioner=[partitioner])
            tell(2)
            program = lowered.to_executorch().buffer
    except InputError as error:
        raise BuildError(f"{onnx_file}: {error}", hint=error.hint) from error
    except refused as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BuildError(f"{onnx_file}: ExecuTorch cannot lower it: {said}") from error
    tell(3)
    _load(program, options, about=onnx_file)
    (folder / ENGINE.file_name).write_bytes(program)


def _runtime() -> Any:
    """Return the module that loads programs; importing it warns that its interface may change.

    Raises:
        MissingPackageError: It is not installed, or older than what this file was written for.
    """
    environment.expect_version("executorch", _OLDEST, by=_BY)
    need("torch", by=_BY)  # its libraries are the runtime's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return need("executorch.extension.pybindings.portable_lib", by=_BY)


def _load(data: bytes, options: ExecuTorchOptions, *, about: Path) -> Any:
    """Load the method of a program whose parts were read before.

    Raises:
        BuildError: The runtime refuses it, or has no kernel for a part of it.
    """
    runtime = _runtime()
    runtime._unsafe_reset_threadpool(options.threads or environment.usable_cores())
    try:
        program = runtime._load_program_from_buffer(data, program_verification=runtime.Verification.InternalConsistency)
        return program.load_method("forward")
    except RuntimeError as error:
        version = environment.library_version("executorch")
        raise BuildError(f"{about}: ExecuTorch {version} cannot load it: {error}") from error


def prove_precision(path: Path, options: ExecuTorchOptions) -> Proof:
    """Count the operations in XNNPACK's parts of the program by type, and the calls of kernels outside of them."""
    program, _ = _pte.read(path)
    inside = tuple(("XNNPACK", kind, n) for kind, n in sorted(program.inside.items()))
    outside = tuple(("portable kernels", name, n) for name, n in sorted(program.outside.items()))
    return Proof(
        source="the program's delegates",
        counts=tuple((op, dtype, n) for (op, dtype), n in sorted(program.counts.items())),
        remark=f"{program.n_delegates} delegates of XNNPACK, {program.outside.total()} kernels outside of them",
        placement=inside + outside,
    )


class _ExecuTorchSession:
    """A loaded program as a `Session`."""

    def __init__(self, path: Path, options: ExecuTorchOptions) -> None:
        program, self._data = _pte.read(path)  # the runtime reads the weights in these bytes
        self._method = _load(self._data, options, about=path)
        self._torch, self.batch = need("torch", by=_BY), program.shape[0]
        self.settings: Mapping[str, str] = {
            "threads": str(options.threads or environment.usable_cores()),
            "delegates": str(program.n_delegates),
            "kernels_outside": str(program.outside.total()),
        }

    def bind(self, image: np.ndarray) -> None:
        self._image = self._torch.from_numpy(np.array(image, dtype=np.float32, order="C"))

    def run(self) -> None:
        (self._found,) = self._method([self._image])

    def fetch(self) -> np.ndarray:
        return np.array(self._found.numpy(), dtype=np.float32)


def open_session(path: Path, options: ExecuTorchOptions) -> Session:
    """Load the program, after all of it was read and held against its length.

    Raises:
        BuildError: It is not whole, or the runtime refuses it.
    """
    return _ExecuTorchSession(path, options)


def why_unavailable() -> str:
    """Say that torch is missing, whose libraries the runtime needs; empty if it is there."""
    return "" if present("torch") else f"its runtime needs torch: {install_line('torch')}"


ENGINE = Engine(
    package="executorch",
    file_name="model.pte",
    options=ExecuTorchOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
)
