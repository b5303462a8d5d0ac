"""A float graph that reduces its activations itself: few numbers leave the runtime, and tensors where wanted."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from deploy_kit.base.lazy import need


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


MEAN = ".mean"
REDUCTIONS = {".low": "ReduceMin", ".high": "ReduceMax", MEAN: "ReduceMean", ".square": "ReduceMean"}
MERGE: dict[str, np.ufunc] = {".low": np.minimum, ".high": np.maximum, MEAN: np.add, ".square": np.add}
_AXES_AS_INPUT = 18  # from this operator set on, ReduceMin, ReduceMax and ReduceMean take their axes as an input


class ReducedGraph:
    """A graph in a session that reduces its activations, so that few numbers leave the runtime."""

    def __init__(self, model: onnx.ModelProto, activations: ObservedActivations, threads: int = 0) -> None:
        """Load the graph, which is not changed.

        Args:
            model: A float32 graph.
            activations: The activations to observe.
            threads: Number of the runtime's threads, 0 for all cores; any number gives the same bits.
        """
        ort = need("onnxruntime", by="calibration")
        self.activations = activations
        shapes = {value.name: shape_of(value) for value in values_of(model)}
        self.image_bytes = 4 * sum(math.prod(shapes.get(name, (1,))[1:]) for name in activations.histograms)
        names = tuple(dict.fromkeys(activations.names))
        self._reduced = dict.fromkeys(REDUCTIONS, names)
        self._reduced[MEAN] = tuple(dict.fromkeys((*names, *activations.means)))
        self._outputs = [f"{name}{suffix}" for suffix, reduced in self._reduced.items() for name in reduced]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        augmented = _augmented(model, self._reduced, activations.histograms).SerializeToString()
        self._session = ort.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
        self._feed = self._session.get_inputs()[0].name
        self.columns: dict[str, slice] = {}

    def run(self, batch: np.ndarray, fetched: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """Run a batch (N, C, …) float32.

        Returns:
            The statistics by reduction, float64, in `columns`; and the values of the activations `fetched`.
        """
        results = self._session.run([*self._outputs, *fetched], {self._feed: batch})
        parts, rest = {}, iter(results)
        for suffix, names in self._reduced.items():
            rows = [_over_images(value, MERGE[suffix]) for _, value in zip(names, rest, strict=False)]
            parts[suffix] = np.concatenate(rows, dtype=np.float64) if rows else np.zeros(0)
            ends = np.cumsum([len(row) for row in rows])
            self.columns |= {
                f"{name}{suffix}": slice(end - len(row), end)
                for name, row, end in zip(names, rows, ends.tolist(), strict=True)
            }
        return parts, list(rest)


def _over_images(value: np.ndarray, merge: np.ufunc) -> np.ndarray:
    """Reduce (N, C) to (C,): a sum to its mean, in float64 where N is not 1."""
    if len(value) == 1:
        return np.asarray(value[0])
    return np.asarray(merge.reduce(np.asarray(value, np.float64), axis=0) / (len(value) if merge is np.add else 1))


def _augmented(
    model: onnx.ModelProto, reduced: dict[str, tuple[str, ...]], fetched: tuple[str, ...]
) -> onnx.ModelProto:
    """Copy the graph; its outputs become the reductions of some activations, and others as they are."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ranks = _ranks(copy)
    del copy.graph.output[:]
    version = next(entry.version for entry in copy.opset_import if not entry.domain)
    copy.graph.node.extend(helper.make_node("Mul", [name, name], [f"{name}.squared"]) for name in reduced[".square"])
    for name in dict.fromkeys(name for names in reduced.values() for name in names):
        # Over the pixels alone: the runtime reduces whole rows in parallel, and the batch is left to numpy.
        axes = list(range(2, ranks[name]))
        for suffix in (suffix for suffix, names in reduced.items() if name in names):
            source, output = f"{name}.squared" if suffix == ".square" else name, f"{name}{suffix}"
            copy.graph.node.append(_reduction(copy, REDUCTIONS[suffix], source, output, axes, version))
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
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values_of(model)}


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def values_of(model: onnx.ModelProto) -> tuple[Any, ...]:
    return (*model.graph.input, *model.graph.value_info, *model.graph.output)
