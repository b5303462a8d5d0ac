"""Calibration images observed in parts on workers, and taken in their order: every bit is that of one process.

What sums of floats and far values depend on is the order of the images. So a worker returns the statistics of each run,
which are added up here, and counts, which are integers; where a value could be far, the part is observed here.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import onnx

from deploy_kit.base.errors import DeviceError, InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.images import Orientation, part_of
from deploy_kit.machine import environment
from deploy_kit.parallel import Workers
from deploy_kit.quantization.ranges import ObservedPart, Observer
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations, ReducedGraph
from deploy_kit.records.artifacts import BareInput, Preprocess

SIZE = 32
"""Images of a part, in whole batches: the ranges are looked at after 32, 64, 128 … images."""

_FIRST = 4  # batches observed here: without them, a first image of every part would have far values


@dataclass(frozen=True, kw_only=True)
class NamedImages:
    """Images as another process finds them.

    Attributes:
        source: Name of the set.
        preprocess: How an image becomes the input.
        reading: How images of the set are read: (skip_bad, orientation).
        hashes: sha256 of each image.
        batch: Images of a run.
    """

    source: str
    preprocess: Preprocess | BareInput
    reading: tuple[bool, Orientation | None]
    hashes: tuple[str, ...]
    batch: int

    def part(self, begin: int, end: int) -> "NamedImages":
        """Take the images from `begin` up to `end`."""
        return replace(self, hashes=self.hashes[begin:end])

    def batches(self) -> Iterator[np.ndarray]:
        """Read the images: (batch, C, …) float32.

        Raises:
            InputError: This process sees other images under the set's name.
        """
        skip_bad, orientation = self.reading
        found = part_of(self.source, self.preprocess, self.hashes, skip_bad=skip_bad, orientation=orientation)
        return found.batches(self.preprocess, self.batch)


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """A part to observe wherever the same files are.

    Attributes:
        graph: File of the prepared float graph.
        sha256: Its hash.
        activations: The activations to observe.
        images: The images.
        expected: Number of all images, as `Observer` takes it.
        n_runs: Number of runs before the part.
        inner: What the bins of each histogram hold before the part, or some images earlier.
        processor: (cpu, instruction sets): another one adds in another order.
    """

    graph: Path
    sha256: str
    activations: ObservedActivations
    images: NamedImages
    expected: int
    n_runs: int
    inner: dict[str, np.ndarray]
    processor: tuple[str, tuple[str, ...]]


def answer(request: PartRequest) -> ObservedPart | None:
    """Observe a part; None where a value may be far from all others.

    Raises:
        InputError: This process sees another graph or other images under the same names.
        DeviceError: The processor is another one here.
        QuantizeError: An activation is not finite.
    """
    if request.processor != (here := _processor()):
        raise DeviceError(
            f"calibration: a worker has another processor than the machine that calibrates: expected "
            f"{request.processor}, found {here}",
            hint="calibrate on machines of one kind, or without --on",
        )
    graph = _graph_once(request.graph, request.sha256, request.activations)
    observer = Observer(graph, expected=request.expected, n_runs=request.n_runs, inner=request.inner)
    for batch in request.images.batches():
        observer.add(batch)
    return observer.part()


def observe_on(
    workers: Workers, model: onnx.ModelProto, observer: Observer, images: NamedImages, folder: Path
) -> Iterator[int]:
    """Have all images observed: the first batches here, then parts on the workers.

    Args:
        workers: The workers.
        model: The prepared float graph.
        observer: Gets all images.
        images: The images.
        folder: Folder that all workers see, for the graph.

    Yields:
        Number of images that workers have observed so far, after each batch and each part.
    """
    n, size = len(images.hashes), -(-SIZE // images.batch) * images.batch
    for batch in images.part(0, min(n, _FIRST * images.batch)).batches():
        observer.add(batch)
        yield 0
    file, elsewhere = folder / "graph.onnx", 0
    onnx.save(model, file)
    try:
        cuts = [observer.n_images, *range(size, n, size), n]
        parts = [images.part(begin, end) for begin, end in pairwise(cuts) if end > begin]
        whole = PartRequest(
            graph=file.resolve(), sha256=sha256_of(file), activations=observer.activations, images=images,
            expected=observer.expected, n_runs=0, inner={}, processor=_processor(),
        )  # fmt: skip
        begins = accumulate((len(part.hashes) for part in parts), initial=observer.n_images)
        # Made when a worker is free: the more parts have been taken by then, the less looks far.
        requests = (
            replace(whole, images=part, n_runs=begin // images.batch, inner=observer.inner)
            for part, begin in zip(parts, begins, strict=False)
        )
        for part, found in zip(parts, workers.map(answer, requests), strict=True):
            if found is not None and observer.take(found):
                elsewhere += found.n_images
            else:
                for batch in part.batches():
                    observer.add(batch)
            yield elsewhere
    finally:
        file.unlink()


@functools.lru_cache(maxsize=1)
def _graph_once(path: Path, sha256: str, activations: ObservedActivations) -> ReducedGraph:
    """Load a graph once for all parts of a process, in one thread: a worker has one core."""
    if not path.is_file() or sha256_of(path) != sha256:
        raise InputError(
            f"{path}: a worker sees another file here",
            hint="put the store on a folder that every machine shares: --store FOLDER",
        )
    return ReducedGraph(onnx.load(path), activations, threads=1)


@functools.lru_cache(maxsize=1)
def _processor() -> tuple[str, tuple[str, ...]]:
    here = environment.describe_machine()
    return here.cpu, tuple(here.isa)
