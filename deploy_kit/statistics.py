"""What the activations of a float graph are like, per channel, over streamed images: memory does not grow with them.

The reductions are nodes of an augmented copy of the graph, so a tensor never leaves the runtime; what comes out of a
run are a few thousand numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploy_kit.errors import QuantizeError
from deploy_kit.lazy import need


@dataclass(frozen=True, kw_only=True)
class Channels:
    """One activation, per channel (C,) float64, over all images and pixels.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        mean: Average.
        std: Standard deviation.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def observe(
    model: onnx.ModelProto,
    names: Iterable[str],
    batches: Iterator[np.ndarray],
    *,
    means: Iterable[str] = (),
    threads: int = 0,
) -> tuple[dict[str, Channels], dict[str, np.ndarray]]:
    """Run the images once and reduce the named activations, over all axes but the second.

    Args:
        model: A float32 graph; not changed.
        names: Activations of rank 2 or more, or the input.
        batches: (N, C, …) float32, all of one size.
        means: Further activations, of which the mean alone is wanted; it costs a quarter.
        threads: Of the runtime; 0 for all cores.

    Returns:
        The statistics of `names`, and the means (C,) of `means`.

    Raises:
        QuantizeError: No images, or an activation is not finite.
    """
    ort = need("onnxruntime", by="calibration")
    wanted = [(name, tuple(_REDUCTIONS)) for name in dict.fromkeys(names)]
    wanted += [(name, (_MEAN,)) for name in dict.fromkeys(means)]
    outputs = [f"{name}{suffix}" for name, suffixes in wanted for suffix in suffixes]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    augmented = _augmented(model, wanted).SerializeToString()
    session = ort.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
    feed, n_runs = session.get_inputs()[0].name, 0
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        for output, value in zip(outputs, session.run(outputs, {feed: batch}), strict=True):
            merge = _MERGE[output[output.rindex(".") :]]
            part = merge.reduce(np.asarray(value, np.float64), axis=0) / (len(value) if merge is np.add else 1)
            totals[output] = merge(totals[output], part) if output in totals else part
        n_runs += 1
    if not n_runs:
        raise QuantizeError("calibration: no images")
    return (
        {name: _channels(name, totals, n_runs) for name, suffixes in wanted if len(suffixes) > 1},
        {name: totals[f"{name}{_MEAN}"] / n_runs for name, suffixes in wanted if len(suffixes) == 1},
    )


def _channels(name: str, totals: dict[str, np.ndarray], n_runs: int) -> Channels:
    low, high, mean = totals[f"{name}.low"], totals[f"{name}.high"], totals[f"{name}{_MEAN}"] / n_runs
    # ONNX Runtime's minima and maxima pass over most NaNs; a mean shows every one.
    if not all(np.isfinite(part).all() for part in (low, high, mean)):
        raise QuantizeError(
            f"calibration: activation '{name}' is not finite on these images",
            hint="check the preprocessing (mean, std) and the checkpoint",
        )
    # E[x²] − E[x]² from float32 parts: a tiny negative remainder is rounding.
    variance = np.maximum(totals[f"{name}.square"] / n_runs - mean**2, 0.0)
    return Channels(low=low, high=high, mean=mean, std=np.sqrt(variance))


_MEAN = ".mean"
_REDUCTIONS = {".low": "ReduceMin", ".high": "ReduceMax", _MEAN: "ReduceMean", ".square": "ReduceMean"}
_MERGE: dict[str, np.ufunc] = {".low": np.minimum, ".high": np.maximum, _MEAN: np.add, ".square": np.add}
_AXES_AS_INPUT = 18  # from this operator set on, ReduceMin, ReduceMax and ReduceMean take their axes as an input


def _augmented(model: onnx.ModelProto, wanted: list[tuple[str, tuple[str, ...]]]) -> onnx.ModelProto:
    """Copy the graph and give it, in place of its outputs, the reductions of the named activations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ranks = _ranks(copy)
    del copy.graph.output[:]
    version = next(entry.version for entry in copy.opset_import if not entry.domain)
    for name, suffixes in wanted:
        # Over the pixels alone: the runtime reduces whole rows in parallel, and the batch is left to numpy.
        axes = list(range(2, ranks[name]))
        squared = f"{name}.squared"
        if ".square" in suffixes:
            copy.graph.node.append(helper.make_node("Mul", [name, name], [squared]))
        for suffix in suffixes:
            source, output = squared if suffix == ".square" else name, f"{name}{suffix}"
            copy.graph.node.append(_reduction(copy, _REDUCTIONS[suffix], source, output, axes, version))
            copy.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return copy


def _reduction(
    model: onnx.ModelProto, operator: str, source: str, output: str, axes: list[int], version: int
) -> onnx.NodeProto:
    if not axes:
        return helper.make_node("Identity", [source], [output])
    if version < _AXES_AS_INPUT:
        return helper.make_node(operator, [source], [output], axes=axes, keepdims=0)
    constant = f"{output}.axes"
    model.graph.initializer.append(helper.make_tensor(constant, onnx.TensorProto.INT64, [len(axes)], axes))
    return helper.make_node(operator, [source, constant], [output], keepdims=0)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    values: Any = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}
