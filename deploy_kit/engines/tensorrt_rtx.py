"""TensorRT for RTX. Builds plans for named GPUs on a machine that has none; running a plan needs the GPU.

Its kernels are compiled on the machine that runs the plan, so its builder times nothing. Options that only guide timing
have no effect and are refused. Each refusal was tried with version 1.7.1.
"""

from pathlib import Path
from typing import Any

from deploy_kit.base.errors import BuildError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.engines import Engine, Session, _cuda
from deploy_kit.engines._nvidia import Flavour, releases_library_objects
from deploy_kit.engines._nvidia.build import build_plan
from deploy_kit.engines._nvidia.options import TensorRtOptions
from deploy_kit.engines._nvidia.proof import prove_file
from deploy_kit.engines._nvidia.session import NvidiaSession
from deploy_kit.records.artifacts import BuiltFor, Proof

_REFUSES = {
    "builder_optimization_level": "TensorRT-RTX times no kernels: every level gives the same plan, byte for byte",
    "version_compatible": "TensorRT-RTX ships no lean runtime, which such a plan needs",
    "hardware_compatibility_level": "TensorRT-RTX has none; name several GPUs in compute_capabilities instead",
    "use_dla_core": "TensorRT-RTX has no DLA; engine 'tensorrt' on a Jetson has",
}


def _capabilities(trt: Any, options: TensorRtOptions) -> tuple[str, ...]:
    known = {f"{name[2:-1]}.{name[-1]}" for name in dir(trt.ComputeCapability) if name.startswith("SM")}  # SM120 → 12.0
    here = _cuda.device_or_none()
    if not options.compute_capabilities and here is None:
        raise BuildError(
            f"engine 'tensorrt_rtx': no compute capability named, and {_cuda.why_no_cuda()}",
            hint="name the GPU to build for, e.g. --compute-capability 8.9",
        )
    requested = options.compute_capabilities or (here.capability if here else "",)
    for capability in requested:
        if capability not in known:
            raise BuildError(
                f"engine 'tensorrt_rtx': cannot build for compute capability '{capability}'",
                hint="known: " + ", ".join(sorted(known, key=float)),
            )
    if (options.refit or options.strip_weights) and (len(requested) > 1 or here is None):
        name = "refit" if options.refit else "strip_weights"
        raise BuildError(
            f"engine 'tensorrt_rtx'.{name}: needs the GPU here and one compute capability, "
            f"found {'no GPU' if here is None else here.name} and {len(requested)}",
            hint=f"leave '{name}' out, or build on the machine that runs the plan",
        )
    return requested


def _configure(trt: Any, config: Any, options: TensorRtOptions) -> None:
    requested = _capabilities(trt, options)  # set for the GPU here too: otherwise the plan is for a family of GPUs
    config.num_compute_capabilities = len(requested)
    for index, capability in enumerate(requested):
        name = "SM" + capability.replace(".", "")
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


_FLAVOUR = Flavour(
    package="tensorrt_rtx",
    title="TensorRT-RTX",
    refuses=_REFUSES,
    capabilities=_capabilities,
    configure=_configure,
    timed=False,
)


def build(
    onnx_file: Path, folder: Path, options: TensorRtOptions, on_progress: ProgressCallback = no_progress
) -> BuiltFor:
    """Build one plan for all named compute capabilities; see `build_plan`."""
    return build_plan(_FLAVOUR, onnx_file, folder / ENGINE.file_name, options, on_progress)


def prove_precision(path: Path, options: TensorRtOptions) -> Proof:
    """Return the proof in the plan's passport, or read the plan's text; needs no GPU."""
    return prove_file(_FLAVOUR, path)


@releases_library_objects
def open_session(path: Path, options: TensorRtOptions) -> Session:
    """Load the plan on CUDA device 0; see `NvidiaSession`."""
    return NvidiaSession(_FLAVOUR, path, options)


ENGINE = Engine(
    package="tensorrt_rtx",
    file_name="model.rtx.plan",
    options=TensorRtOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=_cuda.why_no_cuda,
    cross_builds=True,
    typed=True,
    place=_cuda.options_for_accelerator,
)
