"""ONNX Runtime, on the CPU or by CUDA. The engine is the ONNX file itself; the optimizer runs when it is loaded.

Where CUDA does not work, ONNX Runtime falls back to the CPU with a warning; here that is an error.
"""

import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base import file_notes
from deploy_kit.base.errors import BuildError, DeviceError, InputError, RecipeError
from deploy_kit.base.lazy import need
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.base.versions import INTEGER_MAXIMUM
from deploy_kit.engines import Batches, Engine, Session, _ort_trace, verify_threads
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Proof
from deploy_kit.records.layer_times import Trace

_EXTREMUM = re.compile(r"implementation for (Max|Min)\(")
_DEVICE = re.compile(r"(cpu|cuda)(?::(\d+))?")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SHARED = "replace the existing tensor"  # of exact sums, where weights share a zero point
_SETTLING = 5  # profiled runs before those that count
_EXACT_SUMS = "session.x64quantprecision"
_REQUIREMENTS = "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements"


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeOptions:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 uses every core that this process may use.
        optimize: Run the graph optimizer; without it the graph is computed node by node as it is.
        device: Device to run on: ``cpu``, or ``cuda:N`` for the N-th GPU.
    """

    threads: int = 0
    optimize: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: No machine has so many threads, or the device is neither ``cpu`` nor ``cuda:N``.
        """
        verify_threads("onnxruntime", self.threads)
        if not _DEVICE.fullmatch(self.device):
            raise RecipeError(
                f"engine 'onnxruntime'.device: expected 'cpu' or 'cuda:N', found '{self.device}'",
                hint="for a GPU or NPU of Intel take engine 'openvino'",
            )

    @property
    def place(self) -> tuple[str, int]:
        """Device in ONNX Runtime's terms: kind and number."""
        kind, _, number = self.device.partition(":")
        return kind, int(number or 0)

    @property
    def provider(self) -> str:
        """Execution provider that runs on this device."""
        return _PROVIDERS[self.place[0]]


def _session_options(runtime: Any, options: OnnxRuntimeOptions) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads or environment.usable_cores()
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if not options.optimize:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Its threads keep spinning after a run, which would slow the engines that have their turns next.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings


def _load_session(path: Path, settings: Any, options: OnnxRuntimeOptions) -> Any:
    runtime = need("onnxruntime", by="engine 'onnxruntime'")
    states = runtime.capi.onnxruntime_pybind11_state
    own: tuple[type[Exception], ...] = (RuntimeError, ValueError)
    own += tuple(cls for cls in vars(states).values() if isinstance(cls, type) and issubclass(cls, Exception))
    # x64 without VNNI would add two products of uint8 and int8 in 16 bits, which saturate: the demo's logits
    # lose 24 dB. In 32 bits it takes longer, for nothing where the weights leave room.
    settings.add_session_config_entry(_EXACT_SUMS, "0" if file_notes.sums_fit(path) else "1")
    kind, number = options.place
    requested = [("CUDAExecutionProvider", {"device_id": number})] if kind == "cuda" else []
    providers = [*requested, "CPUExecutionProvider"]
    try:
        with warnings.catch_warnings():  # it warns of a fallback, which is refused below with the reason
            warnings.filterwarnings("ignore", "Specified provider", UserWarning)
            try:
                session = runtime.InferenceSession(str(path), settings, providers=providers)
            except own as error:
                if _SHARED not in str(error):
                    raise
                # What `build` did not write: its weights share a zero point, and their sums may saturate.
                settings.add_session_config_entry(_EXACT_SUMS, "0")
                session = runtime.InferenceSession(str(path), settings, providers=providers)
    except states.InvalidProtobuf as error:
        raise InputError(
            f"{path}: not a whole ONNX file: {error}", hint="export it again; the file may be cut off"
        ) from error
    except own as error:
        if kind == "cuda" and "CUDA" in str(error):
            raise DeviceError(f"{path}: CUDA does not work: {error}", hint=_cuda_needs(runtime)) from error
        hint = _missing_operator_hint(str(error), runtime)
        raise BuildError(f"{path}: ONNX Runtime cannot load it: {error}", hint=hint) from error
    used = session.get_providers()
    if used[0] != options.provider:
        raise DeviceError(
            f"{path}: asked for device '{options.device}' ({options.provider}), ONNX Runtime fell back to {used[0]}",
            hint=_cuda_needs(runtime),
        )
    return session


def _cuda_needs(runtime: Any) -> str:
    """Return what CUDA needs: another build of the package, or the libraries that this build depends on."""
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return (
            f"onnxruntime {runtime.__version__} here is built without CUDA: "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    return f"it needs an NVIDIA driver, and CUDA and cuDNN of the versions it was built for: {_REQUIREMENTS}"


def _missing_operator_hint(error: str, runtime: Any) -> str:
    """Return what to do about an operator that this version lacks; empty if nothing is known."""
    if "NOT_IMPLEMENTED" in error and _EXTREMUM.search(error):
        return (
            f"maxima of integers need onnxruntime {INTEGER_MAXIMUM}, here is {runtime.__version__}: "
            "update it, or quantize with --form depthwise"
        )
    return ""


def build(
    onnx_file: Path, folder: Path, options: OnnxRuntimeOptions, on_progress: ProgressCallback = no_progress
) -> None:
    """Copy the ONNX file, after checking that it loads.

    Raises:
        InputError: The file is not a complete ONNX file.
        BuildError: ONNX Runtime cannot load it.
        DeviceError: The device does not work.
    """
    runtime = need("onnxruntime", by="engine 'onnxruntime'")
    _load_session(onnx_file, _session_options(runtime, options), options)
    shutil.copyfile(onnx_file, folder / ENGINE.file_name)


def prove_precision(path: Path, options: OnnxRuntimeOptions) -> Proof:
    """Run once with the profiler, and count kernels by the type that they compute in and by execution provider.

    Raises:
        DeviceError: Most of the work ran on another provider than was requested.
    """
    _, kernels = _run_profiled(path, options, None, 1)
    placed = _ort_trace.count_placement(kernels)
    _ort_trace.verify_placement(path, placed, options.provider)
    return Proof(
        source="ONNX Runtime's profile of one run", counts=_ort_trace.count_precisions(kernels), placement=placed
    )


def profile(path: Path, options: OnnxRuntimeOptions, image: np.ndarray, runs: int) -> Trace:
    """Time each kernel over `runs` runs, in a session of its own."""
    runs_ms, kernels = _run_profiled(path, options, image, _SETTLING + runs)
    return Trace(
        source="ONNX Runtime's profiler",
        runs_ms=runs_ms[-runs:],
        layers=_ort_trace.layer_times(kernels, runs),
    )


def observe(
    path: Path, options: OnnxRuntimeOptions, tensors: tuple[str, ...], batches: Batches
) -> Iterator[tuple[np.ndarray, ...]]:
    """Compute the output and these further outputs of the file, with the same settings as `open_session`."""
    session = _load_session(path, _session_options(need("onnxruntime", by="engine 'onnxruntime'"), options), options)
    names = [session.get_outputs()[0].name, *tensors]
    for batch in batches:
        yield tuple(session.run(names, {session.get_inputs()[0].name: batch}))


def _run_profiled(
    path: Path, options: OnnxRuntimeOptions, image: np.ndarray | None, runs: int
) -> tuple[tuple[float, ...], tuple[_ort_trace.Kernel, ...]]:
    """Run with the profiler; without an image on zeros, with a batch size of 1 where it is open."""
    settings = _session_options(need("onnxruntime", by="engine 'onnxruntime'"), options)
    settings.enable_profiling = True
    with temporary_folder() as folder:
        settings.profile_file_prefix = str(folder / "profile")
        session = _load_session(path, settings, options)
        entry = session.get_inputs()[0]
        if image is None:
            dtype = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(entry.type, np.float32)
            image = np.zeros([size if isinstance(size, int) else 1 for size in entry.shape], dtype)
        runs_ms = []
        for _ in range(runs):
            begun = time.perf_counter_ns()
            session.run(None, {entry.name: image})
            runs_ms.append((time.perf_counter_ns() - begun) / 1e6)
        kernels = _ort_trace.read_trace(Path(session.end_profiling()))
    return tuple(runs_ms), kernels


class _OrtSession:
    """ONNX Runtime as a `Session`, through I/O binding so that `run` copies nothing."""

    def __init__(self, path: Path, options: OnnxRuntimeOptions) -> None:
        self._runtime = need("onnxruntime", by="engine 'onnxruntime'")
        self._session = _load_session(path, _session_options(self._runtime, options), options)
        self._binding = self._session.io_binding()
        self._place = options.place
        self._image: Any = None
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        self._output = self._session.get_outputs()[0].name
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else 0
        self.settings: Mapping[str, str] = {
            "threads": str(self._session.get_session_options().intra_op_num_threads),
            "provider": self._session.get_providers()[0],
            "device": options.device,
        }

    def bind(self, image: np.ndarray) -> None:
        self._image = self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(image), *self._place)
        self._binding.bind_ortvalue_input(self._input, self._image)
        self._binding.bind_output(self._output, *self._place)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def fetch(self) -> np.ndarray:
        return np.asarray(self._binding.copy_outputs_to_cpu()[0])


def open_session(path: Path, options: OnnxRuntimeOptions) -> Session:
    """Load the file.

    Raises:
        InputError: The file is not a complete ONNX file.
        BuildError: ONNX Runtime cannot load it.
        DeviceError: The device does not work.
    """
    return _OrtSession(path, options)


def why_unavailable() -> str:
    """Return nothing: the CPU is always available, and CUDA is checked when an engine is built or loaded for it."""
    return ""


def _place(accelerator: str) -> dict[str, Any] | None:
    return {"device": accelerator} if _DEVICE.fullmatch(accelerator) else None


ENGINE = Engine(
    package="onnxruntime",
    file_name="model.onnx",
    options=OnnxRuntimeOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
    profile=profile,
    observe=observe,
    place=_place,
)
