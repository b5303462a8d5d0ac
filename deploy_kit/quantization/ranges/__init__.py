"""Statistics of a float graph's activations, per channel, over streamed images: memory does not grow with them.

Minima, maxima and moments are nodes of an augmented copy of the graph, so a tensor never leaves the runtime: a run
returns a few thousand numbers. Only activations that need a histogram are fetched, a batch at a time.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploy_kit.base.errors import QuantizeError
from deploy_kit.base.lazy import need
from deploy_kit.quantization.ranges.histogram import BINS, Histogram


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Statistics of one activation, per channel (C,) float64, over all images and pixels.

    Attributes:
        low: Smallest value.
        high: Largest value.
        mean: Mean.
        std: Standard deviation.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ObservedActivations:
    """The activations to observe, by statistic.

    Attributes:
        names: Activations of rank 2 or more, or the input, of which minima, maxima and moments are observed.
        means: Further activations of which the mean alone is observed, at a quarter of the cost.
        histograms: Those of `names` of which a histogram is counted, too.
    """

    names: tuple[str, ...]
    means: tuple[str, ...] = ()
    histograms: tuple[str, ...] = ()


COUNTED_IMAGES, COUNTED_BYTES = 128, 8 * 2**30
"""Histograms are counted of as many images as have so many bytes of activations, spread over all, and of no fewer than
the first number: counting takes as long as the graph itself. The demo's `mse` from 128, 256 and all 512 of its images
gives 38.8, 39.4 and 40.4 dB."""


class Observer:
    """Runs images through a graph, batch by batch, and accumulates the statistics of its activations."""

    def __init__(
        self, model: onnx.ModelProto, activations: ObservedActivations, threads: int = 0, *, expected: int = 0
    ) -> None:
        """Load the graph, which is not changed.

        Args:
            model: A float32 graph.
            activations: The activations to observe.
            threads: Number of the runtime's threads, 0 for all cores.
            expected: Number of images to come, of which histograms are counted up to `COUNTED_BYTES`; extremes and
                moments are those of all. 0 counts all.
        """
        ort = need("onnxruntime", by="calibration")
        self.activations, self.n_images, self._expected = activations, 0, expected
        shapes = {value.name: _shape(value) for value in _values(model)}
        image = 4 * sum(math.prod(shapes.get(name, (1,))[1:]) for name in activations.histograms)
        self._counted = max(COUNTED_IMAGES, COUNTED_BYTES // max(image, 1))
        reduced = [(name, tuple(_REDUCTIONS)) for name in dict.fromkeys(activations.names)]
        reduced += [(name, (_MEAN,)) for name in dict.fromkeys(activations.means)]
        self._outputs = [f"{name}{suffix}" for name, suffixes in reduced for suffix in suffixes]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        augmented = _augmented(model, reduced, activations.histograms).SerializeToString()
        self._session = ort.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
        self._feed, self._n_runs = self._session.get_inputs()[0].name, 0
        self._totals: dict[str, np.ndarray] = {}
        self.histograms: dict[str, Histogram] = {}

    def add(self, batch: np.ndarray) -> None:
        """Observe a batch (N, C, …) float32; all batches have one size.

        Raises:
            QuantizeError: An activation that needs a histogram is not finite.
        """
        every = max(1, self._expected // max(self._counted, len(batch)))
        counted = self.activations.histograms if self._n_runs % every == 0 else ()
        results = self._session.run([*self._outputs, *counted], {self._feed: batch})
        parts = {}
        for output, value in zip(self._outputs, results, strict=False):
            merge = _MERGE[output[output.rindex(".") :]]
            part = merge.reduce(np.asarray(value, np.float64), axis=0) / (len(value) if merge is np.add else 1)
            self._totals[output] = merge(self._totals[output], part) if output in self._totals else part
            parts[output] = part
        for name, fetched in zip(counted, results[len(self._outputs) :], strict=True):
            low, high = parts[f"{name}.low"], parts[f"{name}.high"]
            _expect_finite(name, low, high, parts[f"{name}{_MEAN}"])
            if name not in self.histograms:
                self.histograms[name] = Histogram.empty(len(low))
            self.histograms[name].add(fetched, low, high)
        self._n_runs += 1
        self.n_images += len(batch)

    def channels(self) -> dict[str, Channels]:
        """Return the statistics of `ObservedActivations.names`.

        Raises:
            QuantizeError: No images, or an activation is not finite.
        """
        self._expect_images()
        return {name: _channels(name, self._totals, self._n_runs) for name in dict.fromkeys(self.activations.names)}

    def means(self) -> dict[str, np.ndarray]:
        """Return the means (C,) of `ObservedActivations.means`.

        Raises:
            QuantizeError: No images.
        """
        self._expect_images()
        return {name: self._totals[f"{name}{_MEAN}"] / self._n_runs for name in dict.fromkeys(self.activations.means)}

    def _expect_images(self) -> None:
        if not self._n_runs:
            raise QuantizeError("calibration: no images")


def observe_activations(
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
        means: Further activations of which the mean alone is observed, at a quarter of the cost.
        threads: Threads of the runtime; 0 for all cores.

    Returns:
        The statistics of `names`, and the means (C,) of `means`.

    Raises:
        QuantizeError: No images, or an activation is not finite.
    """
    observer = Observer(model, ObservedActivations(names=tuple(names), means=tuple(means)), threads)
    for batch in batches:
        observer.add(batch)
    return observer.channels(), observer.means()


def memory_mib(model: onnx.ModelProto, activations: ObservedActivations) -> int:
    """Estimate what observing adds to the memory of a process, from the graph's shapes: weights, activations, bins.

    An open batch counts as 1.
    """
    shapes = {value.name: _shape(value) for value in _values(model)}
    computed = {name for node in model.graph.node for name in node.output}
    tensors = 4 * sum(math.prod(shape) for name, shape in shapes.items() if name in computed)
    fetched = 4 * sum(math.prod(shapes[name]) for name in activations.histograms if name in shapes)
    bins = 8 * BINS * sum(shapes[name][1] for name in activations.histograms if name in shapes)
    return round((_COPIES * int(model.ByteSize()) + _ALIVE * tensors + fetched + bins) / 2**20)


def _channels(name: str, totals: dict[str, np.ndarray], n_runs: int) -> Channels:
    low, high, mean = totals[f"{name}.low"], totals[f"{name}.high"], totals[f"{name}{_MEAN}"] / n_runs
    _expect_finite(name, low, high, mean)
    # E[x²] − E[x]² from float32 parts: a tiny negative remainder is rounding.
    square = totals[f"{name}.square"] / n_runs
    variance = np.maximum(square - mean**2, 0.0)
    # x² beyond float32's range: no distribution within [low, high] has more than this (Bhatia and Davis, 2000).
    largest = np.maximum((high - mean) * (mean - low), 0.0)
    return Channels(low=low, high=high, mean=mean, std=np.sqrt(np.where(np.isfinite(square), variance, largest)))


def _expect_finite(name: str, *parts: np.ndarray) -> None:
    # ONNX Runtime's minima and maxima pass over most NaNs; a mean shows every one.
    if not all(np.isfinite(part).all() for part in parts):
        raise QuantizeError(
            f"calibration: activation '{name}' is not finite on these images",
            hint="check the preprocessing (mean, std) and the checkpoint",
        )


_COPIES = 4  # of the weights: the graph, its serialized form, the runtime's own, and what it packs for its kernels
_ALIVE = 0.5  # of the activations at a time, as the runtime uses memory again; estimated
_MEAN = ".mean"
_REDUCTIONS = {".low": "ReduceMin", ".high": "ReduceMax", _MEAN: "ReduceMean", ".square": "ReduceMean"}
_MERGE: dict[str, np.ufunc] = {".low": np.minimum, ".high": np.maximum, _MEAN: np.add, ".square": np.add}
_AXES_AS_INPUT = 18  # from this operator set on, ReduceMin, ReduceMax and ReduceMean take their axes as an input


def _augmented(
    model: onnx.ModelProto, reduced: list[tuple[str, tuple[str, ...]]], fetched: tuple[str, ...]
) -> onnx.ModelProto:
    """Copy the graph; its outputs become the reductions of some activations, and others as they are."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ranks = _ranks(copy)
    del copy.graph.output[:]
    version = next(entry.version for entry in copy.opset_import if not entry.domain)
    for name, suffixes in reduced:
        # Over the pixels alone: the runtime reduces whole rows in parallel, and the batch is left to numpy.
        axes = list(range(2, ranks[name]))
        squared = f"{name}.squared"
        if ".square" in suffixes:
            copy.graph.node.append(helper.make_node("Mul", [name, name], [squared]))
        for suffix in suffixes:
            source, output = squared if suffix == ".square" else name, f"{name}{suffix}"
            copy.graph.node.append(_reduction(copy, _REDUCTIONS[suffix], source, output, axes, version))
            copy.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    for name in fetched:
        copy.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
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
    return {value.name: len(value.type.tensor_type.shape.dim) for value in _values(model)}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _values(model: onnx.ModelProto) -> tuple[Any, ...]:
    return (*model.graph.input, *model.graph.value_info, *model.graph.output)
