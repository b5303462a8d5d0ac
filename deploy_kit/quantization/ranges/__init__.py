"""Statistics of a float graph's activations, per channel, over streamed images: memory does not grow with them.

Minima, maxima and moments are nodes of an augmented copy of the graph, so a tensor never leaves the runtime: a run
returns a few thousand numbers. Only activations that need a histogram are fetched, a batch at a time.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx

from deploy_kit.base.errors import QuantizeError
from deploy_kit.quantization.ranges.histogram import BINS, Histogram, Suspects
from deploy_kit.quantization.ranges.reduced_graph import (
    MEAN,
    MERGE,
    REDUCTIONS,
    ObservedActivations,
    ReducedGraph,
    shape_of,
    values_of,
)  # fmt: skip


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


COUNTED_IMAGES, COUNTED_BYTES = 128, 8 * 2**30
"""Histograms are counted of as many images as have so many bytes of activations, spread over all, and of no fewer than
the first number: counting takes as long as the graph itself. The demo's `mse` from 128, 256 and all 512 of its images
gives 38.8, 39.4 and 40.4 dB."""


@dataclass(frozen=True, kw_only=True)
class ObservedPart:
    """What an observer of some images in between knows, for the one that observes all.

    Attributes:
        n_images: Number of the images.
        runs: Statistics of each run, as `ReducedGraph.run` gives them.
        histograms: Arrays of the histogram of each activation (`Histogram.parts`).
        suspects: Suspects of each run that was counted, by activation.
        counted: Whether each run was counted.
    """

    n_images: int
    runs: tuple[dict[str, np.ndarray], ...]
    histograms: dict[str, dict[str, np.ndarray]]
    suspects: dict[str, list[Suspects]]
    counted: tuple[bool, ...]


class Observer:
    """Runs images through a graph, batch by batch, and accumulates the statistics of its activations."""

    def __init__(
        self,
        graph: ReducedGraph,
        *,
        expected: int = 0,
        n_runs: int = 0,
        inner: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Begin without images, or in the middle of them to make an `ObservedPart`.

        Args:
            graph: The graph.
            expected: Number of images to come, of which histograms are counted up to `COUNTED_BYTES`; extremes and
                moments are those of all. 0 counts all.
            n_runs: Number of runs before the first.
            inner: What the bins of each histogram hold from the start.
        """
        self.graph, self.activations, self.n_images = graph, graph.activations, 0
        self.expected, self._first, self._n_runs = expected, n_runs, 0
        self._most = max(COUNTED_IMAGES, COUNTED_BYTES // max(graph.image_bytes, 1))
        self._totals: dict[str, np.ndarray] = {}
        self._histograms = {name: Histogram.holding(held) for name, held in (inner or {}).items()}
        # Bins of many channels cost more than the values of one small image: such are counted several at a time.
        self._waiting: list[dict[str, _Counted]] = []
        self._together = min(_TOGETHER, _TOGETHER_BYTES // max(graph.image_bytes, 1))
        self._runs: list[dict[str, np.ndarray]] | None = [] if inner is not None else None
        self._suspects: dict[str, list[Suspects]] = {name: [] for name in inner or ()}
        self._was_counted: list[bool] = []

    def add(self, batch: np.ndarray) -> None:
        """Observe a batch (N, C, …) float32; all batches have one size.

        Raises:
            QuantizeError: An activation that needs a histogram is not finite.
        """
        every = max(1, self.expected // max(self._most, len(batch)))
        counted = self.activations.histograms if (self._first + self._n_runs) % every == 0 else ()
        parts, values = self.graph.run(batch, counted)
        self._accumulate(parts)
        self.n_images += len(batch)
        if self._runs is not None:
            self._runs.append(parts)
            self._was_counted.append(bool(counted))
        if not counted:
            return
        low, high, mean = (
            {name: self._of(name, suffix, parts) for name in counted} for suffix in (".low", ".high", MEAN)
        )
        if not all(np.isfinite(parts[suffix]).all() for suffix in (".low", ".high", MEAN)):
            for name in counted:
                _expect_finite(name, low[name], high[name], mean[name])
        self._waiting.append(
            {name: (value, low[name], high[name]) for name, value in zip(counted, values, strict=True)}
        )
        if len(self._waiting) * len(batch) >= self._together:
            self._count()

    def take(self, part: ObservedPart) -> bool:
        """Take what is known of the next images, bit by bit as if they had been added.

        Returns:
            Whether it was taken; only `add` can count values that are far from all others.
        """
        self._count()
        counted = [run for run, was in zip(part.runs, part.counted, strict=True) if was]
        reaches = dict[str, list[np.ndarray]]()
        for name in part.histograms:
            ends = [[self._of(name, suffix, run) for suffix in (".low", ".high")] for run in counted]
            reach = self._histograms[name].reaches([np.stack(pair, axis=1) for pair in ends], part.suspects[name])
            if reach is None:
                return False
            reaches[name] = reach
        for name, arrays in part.histograms.items():
            self._histograms[name].take(reaches[name], Histogram.of(arrays, ""))
        for run in part.runs:
            self._accumulate(run)
        self.n_images += part.n_images
        return True

    def part(self) -> ObservedPart | None:
        """Return what was observed since a beginning in the middle; None where a value is far from all others."""
        assert self._runs is not None
        found = self.histograms
        if any(one.beyond.any() for one in found.values()):
            return None
        return ObservedPart(
            n_images=self.n_images,
            runs=tuple(self._runs),
            histograms={name: one.parts("") for name, one in found.items()} if any(self._was_counted) else {},
            suspects=self._suspects,
            counted=tuple(self._was_counted),
        )

    @property
    def inner(self) -> dict[str, np.ndarray]:
        """What the bins of each histogram hold."""
        return {name: one.inner for name, one in self.histograms.items()}

    def _accumulate(self, parts: dict[str, np.ndarray]) -> None:
        totals = self._totals
        self._totals = {suffix: MERGE[suffix](totals[suffix], row) if totals else row for suffix, row in parts.items()}
        self._n_runs += 1

    def _count(self) -> None:
        for name in self.activations.histograms if self._waiting else ():
            batches = [run[name] for run in self._waiting]
            if name not in self._histograms:
                self._histograms[name] = Histogram.empty(len(batches[0][1]))
            self._histograms[name].add(batches, self._suspects.get(name))
        self._waiting.clear()

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Histograms of `ObservedActivations.histograms`, of all images counted."""
        self._count()
        return self._histograms

    def _of(self, name: str, suffix: str, parts: dict[str, np.ndarray]) -> np.ndarray:
        return parts[suffix][self.graph.columns[f"{name}{suffix}"]]

    def channels(self) -> dict[str, Channels]:
        """Return the statistics of `ObservedActivations.names`.

        Raises:
            QuantizeError: No images, or an activation is not finite.
        """
        self._expect_images()
        return {
            name: _channels(name, *(self._of(name, suffix, self._totals) for suffix in REDUCTIONS), n_runs=self._n_runs)
            for name in dict.fromkeys(self.activations.names)
        }

    def means(self) -> dict[str, np.ndarray]:
        """Return the means (C,) of `ObservedActivations.means`.

        Raises:
            QuantizeError: No images.
        """
        self._expect_images()
        means = dict.fromkeys(self.activations.means)
        return {name: self._of(name, MEAN, self._totals) / self._n_runs for name in means}

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
    activations = ObservedActivations(names=tuple(names), means=tuple(means))
    observer = Observer(ReducedGraph(model, activations, threads))
    for batch in batches:
        observer.add(batch)
    return observer.channels(), observer.means()


def memory_mib(model: onnx.ModelProto, activations: ObservedActivations) -> int:
    """Estimate what observing adds to the memory of a process, from the graph's shapes: weights, activations, bins.

    An open batch counts as 1.
    """
    shapes = {value.name: shape_of(value) for value in values_of(model)}
    computed = {name for node in model.graph.node for name in node.output}
    tensors = 4 * sum(math.prod(shape) for name, shape in shapes.items() if name in computed)
    fetched = 4 * sum(math.prod(shapes[name]) for name in activations.histograms if name in shapes)
    fetched = max(fetched, min(_TOGETHER * fetched, _TOGETHER_BYTES))
    bins = 8 * BINS * sum(shapes[name][1] for name in activations.histograms if name in shapes)
    return round((_COPIES * int(model.ByteSize()) + _ALIVE * tensors + fetched + bins) / 2**20)


def _channels(
    name: str, low: np.ndarray, high: np.ndarray, total: np.ndarray, squares: np.ndarray, *, n_runs: int
) -> Channels:
    mean, square = total / n_runs, squares / n_runs
    _expect_finite(name, low, high, mean)
    # E[x²] − E[x]² from float32 parts: a tiny negative remainder is rounding.
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


_Counted: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
_TOGETHER, _TOGETHER_BYTES = 8, 64 * 2**20  # images whose values are counted at a time, and what they may hold
_COPIES = 4  # of the weights: the graph, its serialized form, the runtime's own, and what it packs for its kernels
_ALIVE = 0.5  # of the activations at a time, as the runtime uses memory again; estimated
