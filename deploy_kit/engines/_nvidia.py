"""What both NVIDIA flavours share: parse typed ONNX, build a plan, read it, run it. A flavour is a small record.

Every network is strongly typed: dtypes come from the graph. TensorRT 10 is told so by a flag; TensorRT 11 and
TensorRT-RTX know nothing else.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.engines import _cuda
from deploy_kit.errors import BuildError, DeviceError
from deploy_kit.lazy import need
from deploy_kit.records import Proof

# A plan of TensorRT-RTX holds text that types every tensor, a line each: ``tensor={ … type=int8 }``. Constants name
# the size of their payload; scratch space calls itself int8 whatever the network is, and is no tensor of it.
_TENSOR = re.compile(rb"\btensor=\{([^\n]*) type=(\w+) \}")
_SCRATCH, _CONSTANT = b"is_scratchspace=1", b"const_payload_size="
_KERNEL = re.compile(rb"function=\{ ?name=")
_DTYPES = {b"float": "fp32", b"half": "fp16", b"bf16": "bf16", b"int8": "int8"}


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """What differs between TensorRT and TensorRT-RTX.

    Attributes:
        package: Import name.
        configure: (module, builder config, options) → None; sets what only this flavour has.
    """

    package: str
    configure: Callable[[Any, Any, Any], None]


def _module(flavour: Flavour) -> Any:
    return need(flavour.package, by=f"engine '{flavour.package}'")


def _logger(trt: Any, words: list[str]) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc]  # the base class is known only once its library is loaded
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                words.append(message)

    return Collector()


def _parser_words(parser: Any) -> str:
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_name() else ""
        lines.append(f"{node}{error.desc().strip()}")
    return "\n".join(lines)


def _hint(words: str) -> str:
    if "zero point" in words.lower() or "shiftIsAllZeros" in words:
        return "it takes symmetric int8 only: deploykit quantize --int8 --target tensorrt"
    if "Int32" in words and "DequantizeLinear" in words:
        return "it takes no quantized biases: deploykit quantize --int8 --target tensorrt"
    return ""


def build_plan(flavour: Flavour, onnx_file: Path, plan_file: Path, options: Any) -> None:
    """Parse an ONNX file and write the plan.

    Raises:
        BuildError: The parser refused a node, or the builder gave up; the message holds its words whole.
    """
    trt = _module(flavour)
    words: list[str] = []
    logger = _logger(trt, words)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        refusal = _parser_words(parser)
        raise BuildError(f"{onnx_file}: {flavour.package}'s parser refuses it:\n{refusal}", hint=_hint(refusal))
    config = builder.create_builder_config()
    flavour.configure(trt, config, options)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "\n".join(words)
        hint = "it needs a fixed batch: export without --dynamic, with --batch N" if "profile" in said else ""
        raise BuildError(f"{onnx_file}: {flavour.package} built nothing:\n{said}", hint=hint)
    plan_file.write_bytes(plan)


def prove_from_text(plan_file: Path, source: str) -> Proof:
    """Count the tensors of a plan by dtype, and its generated kernels, from the text inside it."""
    plan = plan_file.read_bytes()
    found: Counter[tuple[str, str]] = Counter()
    for body, dtype in _TENSOR.findall(plan):
        if _SCRATCH not in body:
            found["weight" if _CONSTANT in body else "activation", _DTYPES.get(dtype, dtype.decode())] += 1
    kernels = len(_KERNEL.findall(plan))
    if not found:
        return Proof(
            source=source, counts=(), remark="the plan holds no readable text: only the network's types are known"
        )
    counts = tuple((kind, dtype, n) for (kind, dtype), n in sorted(found.items()))
    return Proof(
        source=source,
        counts=(*counts, ("pointwise kernel", "any", kernels)),
        remark="counted from the plan's text; not run",
    )


class NvidiaSession:
    """An execution context behind the `Session` seam, on CUDA device 0."""

    def __init__(self, flavour: Flavour, plan_file: Path) -> None:
        """Load a plan and reserve device memory for its two tensors."""
        why = _cuda.hindrance()
        if why:
            raise DeviceError(f"{plan_file}: cannot run: {why}", hint="run it on a machine with an NVIDIA GPU")
        trt = _module(flavour)
        words: list[str] = []
        self._cuda = _cuda.Context()
        self._runtime = trt.Runtime(_logger(trt, words))
        engine = self._runtime.deserialize_cuda_engine(plan_file.read_bytes())
        if engine is None:
            raise BuildError(
                f"{plan_file}: {flavour.package} {trt.__version__} cannot load this plan: " + "; ".join(words),
                hint="plans fit one version and one GPU: build it again on this machine",
            )
        self._context = engine.create_execution_context()
        self._input, self._output = (engine.get_tensor_name(i) for i in range(2))
        shape = tuple(engine.get_tensor_shape(self._input))
        self._logits = np.empty(tuple(engine.get_tensor_shape(self._output)), np.float32)
        self._engine = engine
        self.batch = max(shape[0], 0)
        self._source = self._cuda.allocate(4 * int(np.prod(shape)))
        self._target = self._cuda.allocate(self._logits.nbytes)
        self._context.set_tensor_address(self._input, self._source)
        self._context.set_tensor_address(self._output, self._target)
        self.settings: Mapping[str, str] = {flavour.package: str(trt.__version__)}

    def bind(self, image: np.ndarray) -> None:
        """Copy the input to the device."""
        self._cuda.copy_in(self._source, np.ascontiguousarray(image, np.float32))

    def run(self) -> None:
        """Compute, and wait for the stream."""
        self._context.execute_async_v3(self._cuda.stream.value or 0)
        self._cuda.wait()

    def fetch(self) -> np.ndarray:
        """Copy the logits from the device."""
        self._cuda.copy_out(self._target, self._logits)
        return self._logits.copy()
