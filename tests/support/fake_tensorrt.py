"""A TensorRT that computes nothing, for the order and the types of calls: its Python classes are stood in for by name.

It works on the memory of the driver of `fake_driver`, which is the host's. No number that comes out is a measurement.
"""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeEngine:
    """An engine that doubles its input: (N or 2, 3) of one dtype → the same in another."""

    def __init__(
        self, dtypes: tuple[str, str] = ("FLOAT", "FLOAT"), *, dynamic: bool = False, works: bool = True
    ) -> None:
        self.dtypes, self.dynamic, self.works = dict(zip(("input", "logits"), dtypes, strict=True)), dynamic, works
        self.num_io_tensors = 2
        self.bound: dict[str, int] = {}
        self.shape: tuple[int, ...] = (2, 3)
        self.enqueued: list[int] = []

    def get_tensor_name(self, index: int) -> str:
        return ("input", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "input" else "out"

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.dtypes[name])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, int]]:
        return [(1, 3), (2, 3), (4, 3)]

    def create_execution_context(self) -> "FakeContext":
        return FakeContext(self)

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return (-1, 3) if self.dynamic else (2, 3)


class FakeContext:
    """Computes on the fake driver's memory, which is the host's."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.engine.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.engine.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.engine.bound[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.enqueued.append(stream)
        kinds = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "UINT8": np.uint8}
        arrays = {
            name: np.ctypeslib.as_array((ctypes.c_byte * (6 * 2 * 4)).from_address(address)).view(kinds[kind])
            for (name, kind), address in zip(self.engine.dtypes.items(), self.engine.bound.values(), strict=True)
        }
        n = int(np.prod(self.engine.shape))
        arrays["logits"][:n] = arrays["input"][:n] * 2
        return self.engine.works


def fake_tensorrt(engine: FakeEngine | None) -> Any:
    """Give a module that deserializes to `engine`, or refuses."""

    class Logger:
        ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
            if engine is None:
                self.logger.log("error", "Version tag does not match. Current 213, Serialized 232")
            return engine

    return SimpleNamespace(
        __version__="10.3.0", ILogger=Logger, Runtime=Runtime, TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out")
    )
