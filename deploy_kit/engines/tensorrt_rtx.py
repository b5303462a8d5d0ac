"""TensorRT for RTX. Builds plans for named GPUs on a machine that has none; running one needs the GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_kit.engines import Engine, Session, _cuda
from deploy_kit.engines._nvidia import Flavour, NvidiaSession, build_plan, prove_from_text
from deploy_kit.errors import BuildError
from deploy_kit.records import Proof
from deploy_kit.watch import Watch, silent


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's build entry.

    Attributes:
        compute_capabilities: GPUs to build for, e.g. ``("8.6", "8.9")``; empty builds for the GPU of this machine.
    """

    compute_capabilities: tuple[str, ...] = ()


def _configure(trt: Any, config: Any, options: Options) -> None:
    if not options.compute_capabilities:
        why = _cuda.hindrance()
        if why:
            raise BuildError(
                f"engine 'tensorrt_rtx': no compute capability named, and {why}",
                hint="name the GPU to build for, e.g. --compute-capability 8.9",
            )
        return
    known = {
        f"{name[2:-1]}.{name[-1]}": name for name in dir(trt.ComputeCapability) if name.startswith("SM")
    }  # SM120 → 12.0
    config.num_compute_capabilities = len(options.compute_capabilities)
    for index, capability in enumerate(options.compute_capabilities):
        if capability not in known:
            raise BuildError(
                f"engine 'tensorrt_rtx': cannot build for compute capability '{capability}'",
                hint="known: " + ", ".join(sorted(known, key=float)),
            )
        config.set_compute_capability(getattr(trt.ComputeCapability, known[capability]), index)


_FLAVOUR = Flavour(package="tensorrt_rtx", configure=_configure)


def build(onnx_file: Path, folder: Path, options: Options, watch: Watch = silent) -> None:
    """Build one plan for all compute capabilities named."""
    build_plan(_FLAVOUR, onnx_file, folder / ENGINE.file_name, options)


def prove_precision(path: Path, options: Options) -> Proof:
    """Read the types of all tensors from the plan's text; needs no GPU."""
    return prove_from_text(path, "TensorRT-RTX plan text")


def open_session(path: Path, options: Options) -> Session:
    """Load the plan on CUDA device 0."""
    return NvidiaSession(_FLAVOUR, path)


ENGINE = Engine(
    package="tensorrt_rtx",
    file_name="model.rtx.plan",
    options=Options,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    hindrance=_cuda.hindrance,
    cross_builds=True,
    typed=True,
)
