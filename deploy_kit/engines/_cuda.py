"""The dozen calls of the CUDA driver that an engine needs, through ctypes: no package to install on a device.

Memory and streams only; kernels are TensorRT's. Calls and types as in NVIDIA's CUDA Driver API reference.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.errors import DeviceError

_NO_DRIVER = "no NVIDIA GPU on this machine"


@functools.cache
def _driver() -> Any:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceError(_NO_DRIVER) from error
    return library


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_driver(), name)(*arguments)
    if code:
        raise DeviceError(f"CUDA: {name} answered with error {code}")


def hindrance() -> str:
    """Say why no CUDA device can be used here; empty if one can."""
    if not (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-gpu").exists()):
        return _NO_DRIVER
    try:
        _call("cuInit", 0)
    except DeviceError as error:
        return str(error)
    return ""


class Context:
    """The primary context of device 0 and one stream on it."""

    def __init__(self) -> None:
        """Start CUDA on device 0."""
        _call("cuInit", 0)
        context, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        _call("cuCtxSetCurrent", context)
        _call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def allocate(self, n_bytes: int) -> int:
        """Reserve device memory and give its address."""
        address = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(n_bytes))
        return address.value

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device and wait for it."""
        source = array.ctypes.data_as(ctypes.c_void_p)
        _call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))

    def copy_out(self, address: int, array: np.ndarray) -> None:
        """Fill a contiguous array from the device and wait for it."""
        target = array.ctypes.data_as(ctypes.c_void_p)
        _call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def wait(self) -> None:
        """Return when all work on the stream has finished."""
        _call("cuStreamSynchronize", self.stream)
