"""TensorRT or TensorRT-RTX for this bundle: what `predict.py` runs its tensors with. Needs no other CUDA package.

Calls of the CUDA driver are those of NVIDIA's CUDA Driver API reference.
"""

import ctypes
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY = "libcuda.so.1"
DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}
_POINTER, _SIZE, _ADDRESS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
_SIGNATURES = {
    "cuInit": (ctypes.c_uint,),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_POINTER), ctypes.c_int),
    "cuCtxSetCurrent": (_POINTER,),
    "cuStreamCreate": (ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cuStreamSynchronize": (_POINTER,),
    "cuMemAlloc_v2": (ctypes.POINTER(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _ADDRESS, _SIZE, _POINTER),
}


def open_engine(path: Path, manifest: dict[str, Any], options: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the plan, which fits one version and one kind of GPU.

    Args:
        path: The engine's file.
        manifest: What the bundle says of itself.
        options: Options in place of the manifest's; none of them changes how a plan runs.

    Returns:
        Inputs (N, …) → outputs (N, K).
    """
    trt = importlib.import_module(manifest["engine"]["package"])
    stream = _stream()
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    if {**manifest["engine"]["options"], **options}.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such a plan contains a small runtime of its own
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RuntimeError(
            f"{trt.__name__} {trt.__version__} cannot load it; rebuild it: {manifest['engine']['rebuild']}"
        )
    context = engine.create_execution_context()
    entry, exit_ = manifest["inputs"][0]["name"], manifest["outputs"][0]["name"]
    taken, given = (DTYPES[engine.get_tensor_dtype(name).name] for name in (entry, exit_))

    def run(tensors: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(tensors, taken)
        if min(tuple(engine.get_tensor_shape(entry))) < 0 and not context.set_input_shape(entry, image.shape):
            raise ValueError(f"the plan does not take {image.shape}")
        result = np.empty(tuple(context.get_tensor_shape(exit_)), given)
        addresses = [_allocated(array.nbytes) for array in (image, result)]
        try:
            for name, address in zip((entry, exit_), addresses):
                context.set_tensor_address(name, address.value)
            _call("cuMemcpyHtoDAsync_v2", addresses[0], image.ctypes.data, image.nbytes, stream)
            if not context.execute_async_v3(stream.value):
                raise RuntimeError(f"{trt.__name__} could not run the plan")
            _call("cuMemcpyDtoHAsync_v2", result.ctypes.data, addresses[1], result.nbytes, stream)
            _call("cuStreamSynchronize", stream)
        finally:
            for address in addresses:
                _call("cuMemFree_v2", address)
        return result

    return run


def _call(name: str, *arguments: Any) -> None:
    function = getattr(ctypes.CDLL(LIBRARY), name)
    function.argtypes, function.restype = _SIGNATURES[name], ctypes.c_int
    code = function(*arguments)
    if code:
        raise RuntimeError(f"{name}: CUDA error {code}")


def _stream() -> ctypes.c_void_p:
    context, stream = ctypes.c_void_p(), ctypes.c_void_p()
    _call("cuInit", 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    _call("cuCtxSetCurrent", context)
    _call("cuStreamCreate", ctypes.byref(stream), 1)  # does not wait for the legacy default stream
    return stream


def _allocated(n_bytes: int) -> ctypes.c_uint64:
    address = ctypes.c_uint64()
    _call("cuMemAlloc_v2", ctypes.byref(address), n_bytes)
    return address
