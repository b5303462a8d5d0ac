"""TensorRT 10 and 11. Builds on the machine that runs it: a plan fits one version and one GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_kit.engines import Engine, Session, _cuda
from deploy_kit.engines._nvidia import Flavour, NvidiaSession, build_plan, prove_from_text
from deploy_kit.records import Proof
from deploy_kit.watch import Watch, silent


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's build entry.

    Attributes:
        optimization_level: How long the builder searches, 0..5; 3 is TensorRT's default.
        workspace_mib: Most scratch memory a layer may use, in MiB; 0 leaves TensorRT's default, all of the device.
    """

    optimization_level: int = 3
    workspace_mib: int = 0


def _configure(trt: Any, config: Any, options: Options) -> None:
    config.builder_optimization_level = options.optimization_level
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)


_FLAVOUR = Flavour(package="tensorrt", configure=_configure)


def build(onnx_file: Path, folder: Path, options: Options, watch: Watch = silent) -> None:
    """Build a plan for the GPU of this machine."""
    build_plan(_FLAVOUR, onnx_file, folder / ENGINE.file_name, options)


def prove_precision(path: Path, options: Options) -> Proof:
    """Read the types of all tensors from the plan's text, where there is any."""
    return prove_from_text(path, "TensorRT plan text")


def open_session(path: Path, options: Options) -> Session:
    """Load the plan on CUDA device 0."""
    return NvidiaSession(_FLAVOUR, path)


ENGINE = Engine(
    package="tensorrt",
    file_name="model.plan",
    options=Options,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    hindrance=_cuda.hindrance,
    typed=True,
)
