"""TensorRT 10 and 11. A plan is built on the machine that runs it, because it fits only one version and one GPU."""

from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.engines import Engine, Session, _cuda
from deploy_kit.engines._nvidia import Flavour, releases_library_objects
from deploy_kit.engines._nvidia.build import build_plan
from deploy_kit.engines._nvidia.options import TensorRtOptions
from deploy_kit.engines._nvidia.proof import prove_file
from deploy_kit.engines._nvidia.session import NvidiaSession
from deploy_kit.records.artifacts import BuiltFor, Proof

_LAST_DLA = "TensorRT 10.7 was the last with DLA, until 11.4.1 on AGX Orin"


def _capabilities(trt: Any, options: TensorRtOptions) -> tuple[str, ...]:
    here = _cuda.device_or_none()
    if here is None:
        raise DeviceError(
            f"engine 'tensorrt': cannot build: {_cuda.why_no_cuda()}",
            hint="build on the device (--device), or with --engine tensorrt_rtx --compute-capability 8.9",
        )
    return (here.capability,)


def _configure(trt: Any, config: Any, options: TensorRtOptions) -> None:
    if options.use_dla_core is None:
        return
    n_cores = trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores
    if options.use_dla_core >= n_cores:
        raise DeviceError(
            f"engine 'tensorrt'.use_dla_core: this machine has {n_cores} DLA cores for TensorRT {trt.__version__}",
            hint=f"leave it out to run on the GPU; {_LAST_DLA}",
        )


_FLAVOUR = Flavour(
    package="tensorrt",
    title="TensorRT",
    refuses={
        "compute_capabilities": "TensorRT builds for the GPU of the machine it runs on; only tensorrt_rtx builds for "
        "others"
    },
    capabilities=_capabilities,
    configure=_configure,
    timed=True,
)


def build(
    onnx_file: Path, folder: Path, options: TensorRtOptions, on_progress: ProgressCallback = no_progress
) -> BuiltFor:
    """Build a plan for the GPU of this machine; see `build_plan`."""
    return build_plan(_FLAVOUR, onnx_file, folder / ENGINE.file_name, options, on_progress)


def prove_precision(path: Path, options: TensorRtOptions) -> Proof:
    """Return the proof in the plan's passport, or ask the engine inspector."""
    return prove_file(_FLAVOUR, path)


@releases_library_objects
def open_session(path: Path, options: TensorRtOptions) -> Session:
    """Load the plan on CUDA device 0; see `NvidiaSession`."""
    return NvidiaSession(_FLAVOUR, path, options)


def _place(accelerator: str) -> dict[str, Any] | None:
    kind, _, number = accelerator.partition(":")
    return {"use_dla_core": int(number)} if kind == "dla" else _cuda.options_for_accelerator(accelerator)


ENGINE = Engine(
    package="tensorrt",
    file_name="model.plan",
    options=TensorRtOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=_cuda.why_no_cuda,
    typed=True,
    place=_place,
)
