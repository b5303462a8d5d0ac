"""One pass over the calibration images: an estimate, progress, a look at the ranges after 32, 64, 128 … images.

Its statistics are kept in the store under the graph's bytes, the images and their preprocessing. They do not depend on
layout or method: extremes serve `minmax`, histograms all other methods.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from deploy_kit.base.errors import StoreError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.machine import environment
from deploy_kit.parallel import ONE_PROCESS, Workers
from deploy_kit.quantization.int8 import calibration_parts, range_selection
from deploy_kit.quantization.int8.calibration_parts import NamedImages
from deploy_kit.quantization.int8.range_selection import ChannelRange, RangeMethod, RangeTarget
from deploy_kit.quantization.ranges import Channels, Observer, memory_mib
from deploy_kit.quantization.ranges.histogram import BINS, Histogram
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations, ReducedGraph
from deploy_kit.store import Key, Store

VERSION = "3"
"""Version of the statistics in the key of the store; to be raised where the same images would give others."""

STAGE = "calibrate"
"""Folder of the statistics in the store."""

_FIRST_LOOK = 32
_FILE = "statistics.npz"
_LIBRARIES = ("onnxruntime", "onnx", "numpy")
_CHANNELS = ("low", "high", "mean", "std")


def _ignore(name: str, fact: str) -> None:
    """Ignore a fact."""


def _no_workers() -> Workers:
    return ONE_PROCESS


@dataclass(frozen=True, kw_only=True)
class CalibrationContext:
    """Where the statistics of a pass are kept, and who is told about it.

    Attributes:
        digest: Hash of the images, their order and their preprocessing; without it nothing is kept.
        store: Folder of the store that keeps the statistics; None keeps nothing.
        on_progress: Called with progress events, the first of which holds the estimate.
        note: (name, fact) → None; called with facts for the passport.
        images: The images as other processes find them; None where they are observed here.
        workers: Opens what observes them, where they are observed at all; the store has to be kept, too.
    """

    digest: str = ""
    store: Path | None = None
    on_progress: ProgressCallback = no_progress
    note: Callable[[str, str], None] = _ignore
    images: NamedImages | None = None
    workers: Callable[[], Workers] = _no_workers


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """The calibration images.

    Attributes:
        n: Number of images.
        batches: Returns an iterator over the images, (N, C, …) float32, from the start.
        context: Where statistics are kept, and who is told.
    """

    n: int
    batches: Callable[[], Iterator[np.ndarray]]
    context: CalibrationContext = field(default_factory=CalibrationContext)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The statistics of one pass.

    Attributes:
        channels: Statistics by activation.
        means: Means (C,) of further activations.
        histograms: Histograms by activation; empty for ``minmax``.
        n_images: Number of images observed.
        said: How the ranges moved while they were observed, in words.
    """

    channels: dict[str, Channels]
    means: dict[str, np.ndarray]
    histograms: dict[str, Histogram]
    n_images: int
    said: str


@dataclass(frozen=True, kw_only=True)
class KeptObservations:
    """The record of statistics in the store.

    Attributes:
        sha256: Hash of the file with the arrays.
        n_images: Number of images observed.
        seconds: Duration of the pass.
        peak_memory_mib: Peak memory of its process.
        method: Method that the pass was made for, with its percentile where that decides.
        said: How the ranges of that method moved, in words.
    """

    sha256: str
    n_images: int
    seconds: float
    peak_memory_mib: int
    method: str
    said: str


def observe_images(
    model: onnx.ModelProto,
    activations: ObservedActivations,
    targets: tuple[RangeTarget, ...],
    ranging: RangeMethod,
    images: ImageStream,
) -> Observed:
    """Observe a graph, or read the statistics that the store has kept of the same graph and images.

    Args:
        model: The prepared float graph.
        activations: The activations to observe.
        targets: Activations whose ranges are looked at on the way.
        ranging: Decides whether histograms are counted, and when to stop.
        images: The calibration images.

    Raises:
        QuantizeError: No images, or an activation is not finite.
    """
    context = images.context
    if context.store is None or not context.digest:
        observed = _pass(model, activations, targets, ranging, images)
        _note(context, ranging, observed.said)
        return observed
    store, graph = Store(context.store), hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    key = _key(graph, activations, ranging, images)
    try:
        kept = store.kept(KeptObservations, key)
    except StoreError:  # changed since it was kept: the images are at hand, and are observed again
        kept = None
    there = None if kept is None else _read(store.folder(key) / _FILE, kept, activations)
    if kept is not None and there is not None:
        # How ranges moved was judged by the method of that pass, and holds for it alone.
        said = kept.said if kept.method == _named(ranging) else f"of {kept.n_images} images"
        _note(context, ranging, said, kept)
        return Observed(**{**vars(there), "said": said})
    look = partial(_pass, model, activations, targets, ranging, images)
    return _made(store, key, activations, ranging, look, context)


def _made(
    store: Store,
    key: Key,
    activations: ObservedActivations,
    ranging: RangeMethod,
    look: Callable[[Path], Observed],
    context: CalibrationContext,
) -> Observed:
    """Make the pass and keep its statistics."""
    result: list[Observed] = []

    def make(folder: Path, home: str) -> KeptObservations:
        begun = time.perf_counter()
        result.append(look(folder))
        seconds = round(time.perf_counter() - begun, 1)
        np.savez_compressed(folder / _FILE, allow_pickle=False, **_arrays(result[0], activations))
        return KeptObservations(
            sha256=sha256_of(folder / _FILE),
            n_images=result[0].n_images,
            seconds=seconds,
            peak_memory_mib=environment.peak_memory_mib(),
            method=_named(ranging),
            said=result[0].said,
        )

    store.produce(KeptObservations, key, make, again=True)  # statistics in the store, if any, could not be read
    _note(context, ranging, result[0].said)
    return result[0]


def _pass(
    model: onnx.ModelProto,
    activations: ObservedActivations,
    targets: tuple[RangeTarget, ...],
    ranging: RangeMethod,
    images: ImageStream,
    folder: Path | None = None,
) -> Observed:
    """Run the images through the graph, looking at the ranges each time their number has doubled.

    With a `folder` that workers see, what workers the context has observe the images.
    """
    context = images.context
    here = environment.resident_memory_mib() + memory_mib(model, activations)
    # Ranges that are to settle are looked at as they grow: every image is counted.
    expected = 0 if ranging.settle else images.n
    observer, looks = Observer(ReducedGraph(model, activations), expected=expected), _Looks(targets, ranging, images.n)
    workers = ONE_PROCESS if folder is None or context.images is None else context.workers()
    if folder is None or context.images is None or workers is ONE_PROCESS:
        steps, by = _steps(observer, images), ""
    else:
        steps = calibration_parts.observe_on(workers, model, observer, context.images, folder)
        by = f" on {workers.n} workers"
    begun, text, first, elsewhere = time.perf_counter(), "", 0, 0
    for n in steps:
        elsewhere = n
        first = first or observer.n_images
        if not text and observer.n_images >= min(images.n, 2 * first):
            # Timed on the second batch: the first one also pays for what the runtime allocates once.
            seconds = (time.perf_counter() - begun) * images.n / first / workers.n
            text = (
                f"ranges ({ranging.method}) of {images.n} images{by}: about {seconds:.0f} s and {here} MiB (estimated)"
            )
            context.on_progress(ProgressEvent(stage="quantize", text=text))
        begun = begun if text else time.perf_counter()
        if text:
            context.on_progress(ProgressEvent(stage="quantize", text=text, done=observer.n_images, total=images.n))
        if looks.due(observer.n_images) and looks.settled(observer) and ranging.settle:
            break
    if by:
        text = f"ranges: {elsewhere} of {observer.n_images} images were observed{by}, the others in this process"
        context.on_progress(ProgressEvent(stage="quantize", text=text))
    channels = observer.channels()
    return Observed(
        channels=channels,
        means=observer.means(),
        histograms=observer.histograms,
        n_images=observer.n_images,
        said=looks.said(observer),
    )


def _steps(observer: Observer, images: ImageStream) -> Iterator[int]:
    for batch in images.batches():
        observer.add(batch)
        yield 0


class _Looks:
    """The ranges at 32, 64, 128 … images and at the end, and how far they moved in between."""

    def __init__(self, targets: tuple[RangeTarget, ...], ranging: RangeMethod, n_images: int) -> None:
        self._targets, self._ranging, self._n_images = targets, ranging, n_images
        self._next, self._seen, self._spans = _FIRST_LOOK, 0, dict[str, ChannelRange]()
        self._moved: range_selection.RangeMovement | None = None
        self._before, self._settled_at = 0, 0

    def due(self, n_images: int) -> bool:
        """Return whether it is time for a look."""
        return n_images >= self._next

    def settled(self, observer: Observer) -> bool:
        """Look at the ranges, and return whether they have settled; extremes never do."""
        doubled, channels = observer.n_images >= 2 * self._seen, observer.channels()
        self._next = 2 * observer.n_images
        # Without slack, which shrinks with the number of images whether ranges have settled or not.
        spans = {
            target.name: range_selection.observed_range(
                target, channels[target.name], observer.histograms, self._ranging
            )
            for target in self._targets
        }
        self._moved = range_selection.range_movement(self._spans, spans) if self._spans else None
        self._before, self._seen, self._spans = self._seen, observer.n_images, spans
        settled = self._ranging.by_histogram and self._moved is not None and self._moved.settled
        # Settled are ranges that a doubling hardly moves, and that stay so: any later look may revoke it.
        self._settled_at = (self._settled_at or self._seen * doubled) if settled else 0
        return self._settled_at > 0

    def said(self, observer: Observer) -> str:
        """Describe how the ranges moved from look to look."""
        if observer.n_images > self._seen and self._seen:
            self.settled(observer)
        if self._moved is None:
            return f"of {observer.n_images} images"
        step = f"from {self._before} to {self._seen} images ends moved by {self._moved}"
        if self._settled_at:
            return f"settled after {self._settled_at} of {self._n_images} images; {step}"
        never = f"not settled after {self._seen} images; " if self._ranging.by_histogram else ""
        return f"{never}{step}"


def _named(ranging: RangeMethod) -> str:
    return f"{ranging.method} {ranging.percentile:g}" if ranging.method == "percentile" else ranging.method


def _note(context: CalibrationContext, ranging: RangeMethod, said: str, kept: KeptObservations | None = None) -> None:
    context.note("ranges", f"{_named(ranging)}, {said}")
    context.on_progress(ProgressEvent(stage="quantize", text=f"ranges ({_named(ranging)}): {said}"))
    if kept is not None:
        cost = f"{kept.seconds:g} s and {kept.peak_memory_mib} MiB then"
        context.note("statistics", f"kept of {kept.n_images} images observed for {kept.method} ({cost})")
        context.on_progress(
            ProgressEvent(stage="quantize", text=f"ranges of {kept.n_images} images are kept: no second pass")
        )


def _key(graph: str, activations: ObservedActivations, ranging: RangeMethod, images: ImageStream) -> Key:
    kind = "histograms" if ranging.by_histogram else "extremes"
    # Extremes never settle: with `settle` they are observed on all images, as without.
    stop = (
        [_named(ranging), range_selection.MEDIAN, range_selection.MOST]
        if ranging.settle and ranging.by_histogram
        else []
    )
    return Key(
        stage=STAGE,
        name=kind,
        inputs=(graph, images.context.digest),
        options=[kind, BINS if ranging.by_histogram else 0, images.n, activations, stop],
        versions=(("stage", VERSION), *((name, environment.library_version(name)) for name in _LIBRARIES)),
    )


def _arrays(observed: Observed, activations: ObservedActivations) -> dict[str, np.ndarray]:
    """Name every array by the index of its activation: names of activations may not be names of files."""
    arrays = {
        f"{at}.{part}": getattr(observed.channels[name], part)
        for at, name in enumerate(activations.names)
        for part in _CHANNELS
    }
    arrays |= {f"{at}.only": observed.means[name] for at, name in enumerate(activations.means)}
    for at, name in enumerate(activations.histograms):
        arrays |= observed.histograms[name].parts(f"{at}.histogram")
    return arrays


def _read(file: Path, kept: KeptObservations, activations: ObservedActivations) -> Observed | None:
    """Read kept statistics; None where the file is not the one that its record describes."""
    if not file.is_file() or sha256_of(file) != kept.sha256:
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return Observed(
            channels={
                name: Channels(**{part: arrays[f"{at}.{part}"] for part in _CHANNELS})
                for at, name in enumerate(activations.names)
            },
            means={name: arrays[f"{at}.only"] for at, name in enumerate(activations.means)},
            histograms={
                name: Histogram.of(arrays, f"{at}.histogram") for at, name in enumerate(activations.histograms)
            },
            n_images=kept.n_images,
            said=kept.said,
        )
