"""The JSON trace of ONNX Runtime's profiler: each kernel's provider, types and times.

Events of category ``Node`` whose name ends in ``_kernel_time`` are one run of one kernel: ``dur`` in µs, and in
``args`` the operator, the execution provider and the types of the inputs (onnxruntime/core/common/profiler.cc).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError, StageError
from deploy_kit.records.layer_times import LayerTime

# Operations with multiply-accumulates, by the names that ONNX Runtime's optimizer gives them.
COMPUTE = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "NhwcConv": "Conv",
    "QLinearConv": "Conv",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
    "QGemm": "Gemm",
    "MatMul": "Gemm",
    "FusedMatMul": "Gemm",
    "QLinearMatMul": "Gemm",
}
_INTEGER = frozenset({"QLinearConv", "QGemm", "QLinearMatMul"})
_DTYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_KERNEL = "_kernel_time"
# Suffixes that its optimizer appends to the name of the node or value that a kernel replaces.
_SUFFIX = re.compile(r"(_nchwc|_nhwc|_bn|_token_\d+)$")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a session.

    Attributes:
        name: Name of its node in the optimized graph.
        op: Operator.
        provider: Execution provider that ran it.
        dtype: Type that it computes in; empty for an operator without multiply-accumulates.
        samples_ms: Duration of each run in ms.
    """

    name: str
    op: str
    provider: str
    dtype: str
    samples_ms: tuple[float, ...]


def read_trace(file: Path) -> tuple[Kernel, ...]:
    """Read a trace.

    Args:
        file: File that `InferenceSession.end_profiling` wrote.

    Returns:
        One entry for each kernel, in order of the first run.

    Raises:
        StageError: The file is not the expected JSON, or contains no kernel.
    """
    try:
        events = json.loads(file.read_text(encoding="utf-8"))
        ran = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_KERNEL)]
        by_node: dict[tuple[str, str], list[Any]] = {}
        for event in ran:
            key = (event["name"].removesuffix(_KERNEL), event["args"].get("node_index", ""))
            by_node.setdefault(key, []).append(event)
        kernels = tuple(_kernel(name, entries) for (name, _), entries in by_node.items())
    except json.JSONDecodeError as error:
        raise StageError(
            f"{file}: ONNX Runtime's profile is cut off: {error}",
            hint="free some space there, see what is limited (ulimit -f), or name another folder: export TMPDIR=FOLDER",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"{file.name}: ONNX Runtime's profile is not as expected: {error!r}") from error
    if not kernels:
        raise StageError(f"{file.name}: ONNX Runtime's profile holds no kernel")
    return kernels


def _kernel(name: str, events: list[Any]) -> Kernel:
    facts = events[0]["args"]
    return Kernel(
        name=name,
        op=facts["op_name"],
        provider=facts["provider"],
        dtype=_dtype(facts),
        samples_ms=tuple(event["dur"] / 1e3 for event in events),
    )


def _dtype(facts: Any) -> str:
    """Return the type that a kernel with multiply-accumulates computes in: that of its weight, the second input.

    A Gemm whose weight and bias were packed ahead lists its first input alone, which is of the same type.
    """
    op = facts["op_name"]
    if op not in COMPUTE:
        return ""
    if op in _INTEGER:
        return "int8"
    weight = str(next(iter(facts["input_type_shape"][:2][-1])))
    return _DTYPES.get(weight, weight)


def count_precisions(kernels: Iterable[Kernel]) -> tuple[tuple[str, str, int], ...]:
    """Count the convolutions and matrix products by the type that they compute in."""
    counts = Counter((COMPUTE[kernel.op], kernel.dtype) for kernel in kernels if kernel.op in COMPUTE)
    return tuple((op, dtype, n) for (op, dtype), n in sorted(counts.items()))


def count_placement(kernels: Iterable[Kernel]) -> tuple[tuple[str, str, int], ...]:
    """Count kernels by execution provider and operation: convolutions, matrix products, and all others."""
    counts = Counter((kernel.provider, COMPUTE.get(kernel.op, "other")) for kernel in kernels)
    return tuple((provider, op, n) for (provider, op), n in sorted(counts.items()))


def verify_placement(where: Path, placed: tuple[tuple[str, str, int], ...], provider: str) -> None:
    """Refuse an engine whose multiply-accumulates mostly ran on another execution provider than was requested.

    Args:
        where: Engine's file, for the error message.
        placed: (provider, operation, number of kernels) of a run.
        provider: Execution provider that was requested.

    Raises:
        DeviceError: More than half of the convolutions and matrix products ran elsewhere.
    """
    work = [row for row in placed if row[1] != "other"]
    total, there = sum(n for _, _, n in work), sum(n for used, _, n in work if used == provider)
    if 2 * there < total:
        elsewhere = ", ".join(f"{n} {op} on {used}" for used, op, n in work if used != provider)
        raise DeviceError(
            f"{where}: asked for {provider}, and {total - there} of {total} convolutions and matrix products ran "
            f"elsewhere ({elsewhere})",
            hint="this provider has no kernels for the graph's types: build the fp32 or fp16 graph, or for device cpu",
        )


def layer_times(kernels: Iterable[Kernel], runs: int) -> tuple[LayerTime, ...]:
    """Return the last `runs` times of each kernel, with the names that it may have in the graph that was loaded.

    Raises:
        StageError: The trace has fewer runs of a kernel, because the profiler drops events beyond its limit.
    """
    layers = []
    for kernel in kernels:
        if len(kernel.samples_ms) < runs:
            raise StageError(f"ONNX Runtime's profile holds {len(kernel.samples_ms)} of {runs} runs of '{kernel.name}'")
        samples = kernel.samples_ms[-runs:]
        layers.append(
            LayerTime(name=kernel.name, op=kernel.op, origins=origins_of_kernel(kernel.name), samples_ms=samples)
        )
    return tuple(layers)


def origins_of_kernel(name: str) -> tuple[str, ...]:
    """List the names that a kernel's node may come from: its own, and its own without suffixes of the optimizer."""
    names = [name]
    while (shorter := _SUFFIX.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    return tuple(names)
