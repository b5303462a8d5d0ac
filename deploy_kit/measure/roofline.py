"""Roofline estimate: the least time that a device could need for a graph's products and for its memory traffic.

    floor = max( 2 · multiply-accumulates / operations per second,  bytes / bytes per second )

after Williams, Waterman and Patterson, "Roofline", CACM 52 (2009). Bytes are the weights once, and what each
convolution and matrix product reads and writes once: a cache that keeps a feature map saves its bytes, a change of the
memory layout adds some.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from deploy_kit.graph import onnx_file
from deploy_kit.measure.hardware_peaks import Peak
from deploy_kit.records.artifacts import Precision
from deploy_kit.records.readings import Processor, Roof

_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_GPU_WORDS = ("CUDA", "TENSORRT", "GPU")  # in a provider or device that a session reports


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work of one run of a graph.

    Attributes:
        macs: Multiply-accumulates.
        weights: Elements of the weights that are read.
        activations: Elements that convolutions and matrix products read and write.
    """

    macs: int
    weights: int
    activations: int


def work_of(path: Path, batch: int) -> Work:
    """Count the work of one run.

    Args:
        path: ONNX file.
        batch: Images per run.

    Raises:
        InputError: The file is not an ONNX file.
    """
    model = onnx_file.load(path)
    weights = activations = 0
    # Only convolutions and matrix products: BNs, activations and concatenations can be fused into their neighbors, and
    # the estimate must not be above what a perfect engine needs.
    for node in model.graph:
        if onnx_file.macs_of(node):
            weights += _element_count(node.inputs[1], leading=True)
            activations += _element_count(node.inputs[0]) + _element_count(node.outputs[0])
    return Work(macs=onnx_file.macs(model) * batch, weights=weights, activations=activations * batch)


def _element_count(value: ir.Value | None, *, leading: bool = False) -> int:
    """Count the elements of a tensor; without `leading`, those of one image."""
    if value is None or value.shape is None:
        return 0
    dims = list(value.shape)[0 if leading else 1 :]
    return math.prod(d for d in dims if isinstance(d, int))


def estimate_roof(work: Work, peak: Peak, precision: Precision, processor: Processor) -> Roof | None:
    """Compute the roofline of `work` at the rates of `peak`.

    Args:
        work: Work of one run.
        peak: Peak rates of the processor at this precision.
        precision: Precision of the products, which decides the bytes of an element.
        processor: Processor that the engine runs on.

    Returns:
        The estimate; None where the graph has no convolution or matrix product.
    """
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


def processor_of(settings: tuple[tuple[str, str], ...]) -> Processor:
    """Return the processor that an engine runs on, by the settings that its session reports.

    A session on a GPU names it in a setting ``gpu``, or reports a device or execution provider with ``CUDA``,
    ``TENSORRT`` or ``GPU`` in its name.
    """
    values = " ".join(value for _, value in settings).upper()
    return "gpu" if "gpu" in dict(settings) or any(word in values for word in _GPU_WORDS) else "cpu"
