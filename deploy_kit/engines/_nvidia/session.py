"""A plan as a `Session` on CUDA device 0 with a stream of its own, written to NVIDIA's documented API.

Copies and computation are timed separately by CUDA events, as in `trtexec`: `device_ms` has the times of the last run,
while the stopwatch takes the host's time around the methods.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import BuildError, DeviceError, InputError
from deploy_kit.engines import _cuda
from deploy_kit.engines._nvidia import Flavour, LibraryMessages, flavour_module, passport
from deploy_kit.engines._nvidia.options import TensorRtOptions, shape_text

_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32,
          "INT64": np.int64, "BOOL": np.bool_}  # fmt: skip


@dataclass(frozen=True)
class _Buffer:
    """One input or output: device memory, and page-locked host memory of the same size."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    device: int
    host: int
    n_bytes: int

    def view(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the host memory as an array of this shape, without a copy."""
        n = int(np.prod(shape))
        raw = (ctypes.c_byte * (n * self.dtype.itemsize)).from_address(self.host)
        return np.ctypeslib.as_array(raw).view(self.dtype).reshape(shape)


class NvidiaSession:
    """An execution context with a stream of its own; `run` returns when the device has finished."""

    def __init__(self, flavour: Flavour, plan_file: Path, options: TensorRtOptions) -> None:
        """Load a plan and allocate memory for its largest shapes.

        Raises:
            BuildError: The plan is damaged, or the library refuses it.
            DeviceError: The plan was built for another version or GPU, or this machine has no GPU.
        """
        trt = flavour_module(flavour)
        passport.verify_plan(plan_file, flavour.package, str(trt.__version__))
        why = _cuda.why_no_cuda()
        if why:
            raise DeviceError(f"{plan_file}: cannot run: {why}", hint="run it on a machine with an NVIDIA GPU")
        self._cuda = _cuda.CudaContext()
        self._messages = LibraryMessages(trt)
        self._runtime = trt.Runtime(self._messages.logger)  # kept: the engine must not outlive it
        self._engine = _deserialize(trt, flavour, self._runtime, plan_file, options, self._messages)
        self._context: Any = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        if len(inputs) != 1:
            raise BuildError(f"{plan_file}: expected one input, found {len(inputs)}: {', '.join(inputs)}")
        self._has_open_shape = min(tuple(self._engine.get_tensor_shape(inputs[0]))) < 0
        self._input = self._buffer(inputs[0], self._largest_shape(inputs[0]))
        # Set first: the shapes of the outputs, and so their memory, follow from the largest input.
        self._set_input_shape(self._input.shape)
        self._outputs = [self._buffer(name, tuple(self._context.get_tensor_shape(name))) for name in outputs]
        for buffer in (self._input, *self._outputs):
            self._context.set_tensor_address(buffer.name, buffer.device)
        self.batch = 0 if self._has_open_shape else self._input.shape[0]
        self._graph = _cuda.CudaGraph(self._cuda) if options.cuda_graph else None
        self._shape = self._input.shape
        self._spans = {name: _cuda.EventPair(self._cuda) for name in ("h2d", "compute", "d2h")}
        self.settings: Mapping[str, str] = self._describe(flavour, str(trt.__version__), options)

    @property
    def device_ms(self) -> Mapping[str, float]:
        """Device time of the last run in ms: ``h2d``, ``compute``, ``d2h``."""
        return {name: span.ms for name, span in self._spans.items()}

    def bind(self, image: np.ndarray) -> None:
        """Copy the input to the device in the plan's dtype; a plan with an open shape is set to the input's shape.

        Raises:
            InputError: The plan does not take this shape.
        """
        if image.shape != self._shape:
            self._reshape(image.shape)
        view = self._input.view(image.shape)
        np.copyto(view, image, casting="same_kind")
        with self._spans["h2d"].around():
            self._cuda.copy_in(self._input.device, self._input.host, view.nbytes)
        self._cuda.wait()

    def run(self) -> None:
        """Compute, and wait until the device has finished."""
        if self._graph is not None and not self._graph.captured:
            self._enqueue()  # TensorRT allocates memory in its first run, which must not happen during a capture
            self._cuda.wait()
            with self._graph.capture():
                self._enqueue()
        with self._spans["compute"].around():
            if self._graph is None:
                self._enqueue()
            else:
                self._graph.launch()
        self._cuda.wait()

    def fetch(self) -> np.ndarray:
        """Copy the outputs from the device, and return the first as float32."""
        shapes = [tuple(self._context.get_tensor_shape(buffer.name)) for buffer in self._outputs]
        views = [buffer.view(shape) for buffer, shape in zip(self._outputs, shapes, strict=True)]
        with self._spans["d2h"].around():
            for buffer, view in zip(self._outputs, views, strict=True):
                self._cuda.copy_out(buffer.host, buffer.device, view.nbytes)
        self._cuda.wait()
        return views[0].astype(np.float32)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream_handle):
            raise DeviceError(f"TensorRT could not run the plan: {self._messages}")

    def _largest_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._engine.get_tensor_shape(name))
        return tuple(self._engine.get_tensor_profile_shape(name, 0)[2]) if self._has_open_shape else shape

    def _buffer(self, name: str, shape: tuple[int, ...]) -> _Buffer:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _NUMPY:
            raise BuildError(
                f"tensor '{name}' is of type {kind.lower()}, which numpy has not", hint="keep I/O in float32"
            )
        dtype = np.dtype(_NUMPY[kind])
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        device, host = self._cuda.allocate(n_bytes), self._cuda.allocate_host(n_bytes)
        return _Buffer(name, dtype, shape, device, host, n_bytes)

    def _set_input_shape(self, shape: tuple[int, ...]) -> None:
        if self._has_open_shape and not self._context.set_input_shape(self._input.name, shape):
            raise InputError(f"the plan does not take {shape_text(shape)}: {self._messages}")

    def _reshape(self, shape: tuple[int, ...]) -> None:
        """Set another input shape, if it is within the plan's first profile."""
        expected = shape_text(self._input.shape)
        if self._has_open_shape:
            low, _, high = (tuple(ends) for ends in self._engine.get_tensor_profile_shape(self._input.name, 0))
            expected = f"{shape_text(low)} to {shape_text(high)}"
            if len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                self._set_input_shape(shape)
                self._shape = shape
                if self._graph is not None:
                    self._graph.drop()  # it was captured for the previous shape
                return
        raise InputError(f"input '{self._input.name}': expected shape {expected}, found {shape_text(shape)}")

    def _describe(self, flavour: Flavour, version: str, options: TensorRtOptions) -> dict[str, str]:
        here = _cuda.device_or_none()
        assert here is not None
        return {
            flavour.package: version,
            "gpu": f"{here.name} (sm_{here.capability.replace('.', '')})",
            "driver": here.driver,
            "cuda_graph": "on" if options.cuda_graph else "off",
            "copies": "page-locked",
        }


def _deserialize(
    trt: Any, flavour: Flavour, runtime: Any, plan_file: Path, options: TensorRtOptions, messages: LibraryMessages
) -> Any:
    """Deserialize a plan.

    Raises:
        BuildError: The library refuses it.
    """
    if options.use_dla_core is not None:
        runtime.DLA_core = options.use_dla_core
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan contains a small runtime of its own
    engine = runtime.deserialize_cuda_engine(plan_file.read_bytes())
    if engine is None:
        raise BuildError(
            f"{plan_file}: {flavour.package} {trt.__version__} cannot load this plan: {messages}",
            hint=f"plans fit one version and one GPU; {passport.rebuild_hint(flavour.package)}",
        )
    return engine
