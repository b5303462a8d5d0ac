"""Calls of the CUDA driver that an engine needs, through ctypes, so that a device needs no package for them.

Only memory, streams, events and graphs; kernels are TensorRT's. Calls and types are those of NVIDIA's CUDA Driver API
reference; each call declares its argument types, because ctypes would pass Python integers as 32-bit ones.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError

LIBRARY = "libcuda.so.1"
_NO_DRIVER = "no NVIDIA GPU on this machine"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_INT, _UINT, _PTR, _SIZE, _ADDRESS = ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
_OUT = ctypes.POINTER
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UINT,),
    "cuGetErrorName": (_INT, _OUT(ctypes.c_char_p)),
    "cuDeviceGetCount": (_OUT(_INT),),
    "cuDeviceGetName": (ctypes.c_char_p, _INT, _INT),
    "cuDeviceGetAttribute": (_OUT(_INT), _INT, _INT),
    "cuDriverGetVersion": (_OUT(_INT),),
    "cuDevicePrimaryCtxRetain": (_OUT(_PTR), _INT),
    "cuCtxSetCurrent": (_PTR,),
    "cuStreamCreate": (_OUT(_PTR), _UINT),
    "cuStreamSynchronize": (_PTR,),
    "cuStreamDestroy_v2": (_PTR,),
    "cuMemAlloc_v2": (_OUT(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemAllocHost_v2": (_OUT(_PTR), _SIZE),
    "cuMemFreeHost": (_PTR,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _PTR, _SIZE, _PTR),
    "cuMemcpyDtoHAsync_v2": (_PTR, _ADDRESS, _SIZE, _PTR),
    "cuEventCreate": (_OUT(_PTR), _UINT),
    "cuEventRecord": (_PTR, _PTR),
    "cuEventElapsedTime": (_OUT(ctypes.c_float), _PTR, _PTR),
    "cuStreamBeginCapture_v2": (_PTR, _INT),
    "cuStreamEndCapture": (_PTR, _OUT(_PTR)),
    "cuGraphInstantiateWithFlags": (_OUT(_PTR), _PTR, ctypes.c_ulonglong),
    "cuGraphLaunch": (_PTR, _PTR),
    "cuGraphDestroy": (_PTR,),
    "cuGraphExecDestroy": (_PTR,),
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """CUDA device 0.

    Attributes:
        name: Name that the driver gives it.
        capability: Compute capability, e.g. ``8.7``.
        driver: Version of the kernel module, where it reports one, and the CUDA version that the driver supports.
    """

    name: str
    capability: str
    driver: str


@functools.cache
def _driver(library: str) -> Any:
    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        raise DeviceError(_NO_DRIVER) from error
    for name, types in _SIGNATURES.items():
        function = getattr(loaded, name, None)
        if function is None:
            raise DeviceError(f"CUDA: this driver has no '{name}'", hint="install a driver for CUDA 12 or later")
        function.argtypes, function.restype = types, _INT
    return loaded


def call_driver(name: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Args:
        name: Name of the function.
        *arguments: Its arguments.

    Raises:
        DeviceError: The function returned an error, which the message names, or there is no driver.
    """
    driver = _driver(LIBRARY)
    code = getattr(driver, name)(*arguments)
    if code:
        error_name = ctypes.c_char_p()
        unknown = driver.cuGetErrorName(code, ctypes.byref(error_name))
        text = f"error {code}" if unknown or not error_name.value else f"{error_name.value.decode()} ({code})"
        raise DeviceError(f"CUDA: {name} answered with {text}")


def why_no_cuda() -> str:
    """Return why no CUDA device can be used on this machine; empty if one can."""
    if not has_device_file():
        return _NO_DRIVER
    try:
        call_driver("cuInit", 0)
    except DeviceError as error:
        return str(error)
    return ""


def options_for_accelerator(accelerator: str) -> dict[str, Any] | None:
    """Return the options that make an engine compute on an accelerator: none for CUDA device 0; None for all others."""
    return {} if accelerator == "cuda:0" else None


def has_device_file() -> bool:
    """Return whether the system has a device file of an NVIDIA GPU: of a card, or of a Tegra's own GPU."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-gpu").exists()


def device_or_none() -> Gpu | None:
    """Describe CUDA device 0; None where there is none."""
    if why_no_cuda():
        return None
    name = ctypes.create_string_buffer(256)
    call_driver("cuDeviceGetName", name, 256, 0)
    major, minor = (_attribute(index) for index in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    version = ctypes.c_int()
    call_driver("cuDriverGetVersion", ctypes.byref(version))
    cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    module = Path("/sys/module/nvidia/version")
    kernel = module.read_text().strip() if module.is_file() else ""
    return Gpu(name=name.value.decode(), capability=f"{major}.{minor}", driver=", ".join(filter(None, [kernel, cuda])))


def _attribute(index: int) -> int:
    value = ctypes.c_int()
    call_driver("cuDeviceGetAttribute", ctypes.byref(value), index, 0)
    return value.value


def _create_handle(name: str, *arguments: Any) -> ctypes.c_void_p:
    """Call a function that returns a handle through its first argument."""
    handle = ctypes.c_void_p()
    call_driver(name, ctypes.byref(handle), *arguments)
    return handle


class CudaContext:
    """The primary context of device 0, and one stream on it."""

    def __init__(self) -> None:
        """Start CUDA on device 0."""
        call_driver("cuInit", 0)
        call_driver("cuCtxSetCurrent", _create_handle("cuDevicePrimaryCtxRetain", 0))
        self.stream = _create_handle("cuStreamCreate", _NON_BLOCKING)

    @property
    def stream_handle(self) -> int:
        """Address of the stream as a number, as TensorRT takes it."""
        return self.stream.value or 0

    def allocate(self, n_bytes: int) -> int:
        """Allocate device memory and return its address."""
        address = ctypes.c_uint64()
        call_driver("cuMemAlloc_v2", ctypes.byref(address), n_bytes)
        return address.value

    def allocate_host(self, n_bytes: int) -> int:
        """Allocate page-locked host memory, which asynchronous copies need, and return its address."""
        return _create_handle("cuMemAllocHost_v2", n_bytes).value or 0

    def copy_in(self, address: int, host: int, n_bytes: int) -> None:
        """Enqueue a copy to the device on the stream."""
        call_driver("cuMemcpyHtoDAsync_v2", address, host, n_bytes, self.stream)

    def copy_out(self, host: int, address: int, n_bytes: int) -> None:
        """Enqueue a copy from the device on the stream."""
        call_driver("cuMemcpyDtoHAsync_v2", host, address, n_bytes, self.stream)

    def wait(self) -> None:
        """Wait until all work on the stream has finished."""
        call_driver("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Destroy the stream; the primary context ends with the process."""
        call_driver("cuStreamDestroy_v2", self.stream)


class EventPair:
    """Two events on a stream, which measure the device's time between them."""

    def __init__(self, context: CudaContext) -> None:
        """Create both events."""
        self._context = context
        self._begin, self._end = (_create_handle("cuEventCreate", 0) for _ in range(2))
        self._used = False

    @contextmanager
    def around(self) -> Iterator[None]:
        """Record an event before and after what the block enqueues on the stream."""
        call_driver("cuEventRecord", self._begin, self._context.stream)
        yield
        call_driver("cuEventRecord", self._end, self._context.stream)
        self._used = True

    @property
    def ms(self) -> float:
        """Time between the events in ms, once the stream has finished; 0 before the first use."""
        if not self._used:
            return 0.0
        elapsed = ctypes.c_float()
        call_driver("cuEventElapsedTime", ctypes.byref(elapsed), self._begin, self._end)
        return elapsed.value


class CudaGraph:
    """A CUDA graph: work that was captured from a stream and can be launched as one."""

    def __init__(self, context: CudaContext) -> None:
        """Create an empty graph."""
        self._context = context
        self._ready: ctypes.c_void_p | None = None

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Capture what the block enqueues on the stream instead of running it."""
        call_driver("cuStreamBeginCapture_v2", self._context.stream, _THREAD_LOCAL)
        try:
            yield
        finally:
            graph = _end_capture(self._context)  # after an error too, or the stream would keep capturing
        self.drop()
        self._ready = _create_handle("cuGraphInstantiateWithFlags", graph, 0)
        call_driver("cuGraphDestroy", graph)

    @property
    def captured(self) -> bool:
        """Whether there is a graph to launch."""
        return self._ready is not None

    def launch(self) -> None:
        """Enqueue the graph on the stream."""
        call_driver("cuGraphLaunch", self._ready, self._context.stream)

    def drop(self) -> None:
        """Destroy the captured graph, if there is one."""
        if self._ready is not None:
            call_driver("cuGraphExecDestroy", self._ready)
            self._ready = None


def _end_capture(context: CudaContext) -> ctypes.c_void_p:
    graph = ctypes.c_void_p()
    call_driver("cuStreamEndCapture", context.stream, ctypes.byref(graph))
    return graph
