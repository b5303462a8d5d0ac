"""ONNX Runtime's profile: which kernel ran where, on what types, for how long. JSON of its own profiler.

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

# Operations that do multiply-accumulates, by the name ONNX Runtime gives them after its optimizer.
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
# What its optimizer puts behind the name of the node or value that a kernel replaces.
_SUFFIX = re.compile(r"(_nchwc|_nhwc|_bn|_token_\d+)$")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a session.

    Attributes:
        name: Of its node in the optimized graph.
        op: The operator.
        provider: The execution provider it ran on.
        dtype: What it computes in; empty where it does no multiply-accumulates.
        samples_ms: One time a run.
    """

    name: str
    op: str
    provider: str
    dtype: str
    samples_ms: tuple[float, ...]


def read_trace(file: Path) -> tuple[Kernel, ...]:
    """Read a profile.

    Args:
        file: What `InferenceSession.end_profiling` wrote.

    Returns:
        One entry a kernel, in the order of their first run.

    Raises:
        StageError: Not the JSON that was expected, or no kernel in it.
    """
    try:
        events = json.loads(file.read_text(encoding="utf-8"))
        ran = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_KERNEL)]
        by_node: dict[tuple[str, str], list[Any]] = {}
        for event in ran:
            key = (event["name"].removesuffix(_KERNEL), event["args"].get("node_index", ""))
            by_node.setdefault(key, []).append(event)
        kernels = tuple(_kernel(name, entries) for (name, _), entries in by_node.items())
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
    """Give what a kernel with multiply-accumulates computes in: the type of its weight, its second input."""
    op = facts["op_name"]
    if op not in COMPUTE:
        return ""
    if op in _INTEGER:
        return "int8"
    weight = str(next(iter(facts["input_type_shape"][1])))
    return _DTYPES.get(weight, weight)


def count_precisions(kernels: Iterable[Kernel]) -> tuple[tuple[str, str, int], ...]:
    """Count the convolutions and matrix products by what they compute in."""
    found = Counter((COMPUTE[kernel.op], kernel.dtype) for kernel in kernels if kernel.op in COMPUTE)
    return tuple((op, dtype, n) for (op, dtype), n in sorted(found.items()))


def count_placement(kernels: Iterable[Kernel]) -> tuple[tuple[str, str, int], ...]:
    """Count kernels by the provider they ran on: convolutions, matrix products, and all others."""
    found = Counter((kernel.provider, COMPUTE.get(kernel.op, "other")) for kernel in kernels)
    return tuple((provider, op, n) for (provider, op), n in sorted(found.items()))


def verify_placement(where: Path, placed: tuple[tuple[str, str, int], ...], provider: str) -> None:
    """Refuse an engine most of whose multiply-accumulates ran on another provider than was asked for.

    Raises:
        DeviceError: More than half of the convolutions and matrix products ran elsewhere.
    """
    work = [row for row in placed if row[1] != "other"]
    total, there = sum(n for _, _, n in work), sum(n for found, _, n in work if found == provider)
    if 2 * there < total:
        elsewhere = ", ".join(f"{n} {op} on {found}" for found, op, n in work if found != provider)
        raise DeviceError(
            f"{where}: asked for {provider}, and {total - there} of {total} convolutions and matrix products ran "
            f"elsewhere ({elsewhere})",
            hint="this provider has no kernels for the graph's types: build the fp32 or fp16 graph, or for device cpu",
        )


def layer_times(kernels: Iterable[Kernel], runs: int) -> tuple[LayerTime, ...]:
    """Give the last `runs` times of each kernel, with the names that it may have in the graph that was loaded.

    Raises:
        StageError: A kernel ran fewer times: the profiler drops events beyond its limit.
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
    """List the names that a kernel's node may come from: its own, and that without each suffix of the optimizer."""
    names = [name]
    while (shorter := _SUFFIX.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    return tuple(names)
