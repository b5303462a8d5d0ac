"""The least time a device could need for a graph: for its products, and for its bytes. An estimate, and called one.

    floor = max( 2 · multiply-accumulates / operations a second,  bytes / bytes a second )

after Williams, Waterman and Patterson, "Roofline", CACM 52 (2009). Bytes are the weights once, and what each
convolution and matrix product reads and writes once: a cache that keeps a map saves its bytes, a layout that is changed
on the way adds some.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.measure.hardware_peaks import Peak
from deploy_kit.records.artifacts import Artifact, Exported, Precision
from deploy_kit.records.readings import Processor, Roof
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store

_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one run of a graph takes: multiply-accumulates, and elements that are moved."""

    macs: int
    weights: int
    activations: int


def work_of(path: Path, batch: int) -> Work:
    """Count what a run at this batch takes.

    Raises:
        InputError: Not an ONNX file.
    """
    model = onnx_file.load(path)
    weights = activations = 0
    for node in model.graph:
        if onnx_file.macs_of(node):
            weights += _elements(node.inputs[1], leading=True)
            activations += _elements(node.inputs[0]) + _elements(node.outputs[0])
    return Work(macs=onnx_file.macs(model) * batch, weights=weights, activations=activations * batch)


def _elements(value: ir.Value | None, *, leading: bool = False) -> int:
    """Count the elements of a tensor; without `leading` of one image."""
    if value is None or value.shape is None:
        return 0
    dims = list(value.shape)[0 if leading else 1 :]
    return math.prod(d for d in dims if isinstance(d, int))


def estimate_roof(work: Work, peak: Peak, precision: Precision, processor: Processor) -> Roof | None:
    """Put work and peak together; None where the graph holds no products that are known."""
    if not work.macs:
        return None
    return Roof(
        device=peak.device,
        processor=processor,
        precision=precision,
        basis=peak.basis,
        source=peak.source,
        peak_ops_s=peak.ops_s,
        bandwidth_b_s=peak.bandwidth_b_s,
        macs=work.macs,
        moved_bytes=(work.weights + work.activations) * _BYTES[precision],
    )


def processor_of(engine: str, settings: tuple[tuple[str, str], ...]) -> Processor:
    """Say what an engine computes on, by its name and what its session said."""
    said = " ".join(value for _, value in settings).upper()
    elsewhere = any(word in said for word in ("CUDA", "TENSORRT", "GPU"))
    return "gpu" if engine.startswith("tensorrt") or elsewhere else "cpu"


def graph_of(engine: Artifact, store: Store) -> Path | None:
    """Find the graph that an engine was built from; None where the store does not have it."""
    made = store.all(Artifact, "quantize")
    made += [found.onnx for found in store.all(Simplified, "simplify")]
    made += [found.onnx for found in store.all(Exported, "export")]
    return next((store.root / graph.path for graph in made if graph.sha256 == engine.parent), None)
