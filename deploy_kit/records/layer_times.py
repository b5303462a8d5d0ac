"""The nouns of a layer profile: what an engine says of its own layers, and where in the network they belong.

A profiled run is slower than others, because each layer is timed: shares are what a profile is for, and its total
stands beside the latency measured without it.
"""

from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["conv", "gemm", "bn_relu", "concat", "pool", "requantize", "copy", "other"]

UNKNOWN_REGION = "unknown"


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer as an engine names and times it.

    Attributes:
        name: The engine's own.
        op: What it calls the operation, e.g. ``QLinearConv``.
        origins: Names of the graph's nodes and values that it says, or shows, the layer was made of.
        samples_ms: One time a run; 0 where it did not run.
    """

    name: str
    op: str
    origins: tuple[str, ...]
    samples_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What an engine says of its layers.

    Attributes:
        source: Where it was read, e.g. ``ONNX Runtime's profiler``.
        runs_ms: Wall time of each profiled run.
        layers: In the order they run.
    """

    source: str
    runs_ms: tuple[float, ...]
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, kw_only=True)
class ProfiledLayer:
    """One layer and where it belongs.

    Attributes:
        name: The engine's own.
        op: What the engine calls the operation.
        kind: The operation in the network's terms; ``copy`` moves or reorders, ``requantize`` changes grid or type.
        region: ``stem``, ``block 1``, ``transition 1``, …, ``head``; ``unknown`` where the engine's name says nothing.
        total_ms: Over all runs.
        mean_ms: Of one run.
        median_ms: Of one run.
    """

    name: str
    op: str
    kind: LayerKind
    region: str
    total_ms: float
    mean_ms: float
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """Where an engine's time goes, from runs of its own after the latency was measured.

    Attributes:
        source: Where it was read; empty where the engine has no profile.
        runs: Profiled runs.
        run_ms: Median wall time of a profiled run.
        layers: In the order they run.
        remark: Why there is none; empty where there is one.
    """

    source: str
    runs: int
    run_ms: float
    layers: tuple[ProfiledLayer, ...]
    remark: str = ""

    @property
    def total_ms(self) -> float:
        """The layers' median times added up: what an undisturbed run spends in layers."""
        return sum(layer.median_ms for layer in self.layers)

    @property
    def mean_total_ms(self) -> float:
        """The layers' mean times added up; far above `total_ms` where other programs held layers up now and then."""
        return sum(layer.mean_ms for layer in self.layers)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that layers are in, in the order they begin; ``unknown`` last."""
        found = dict.fromkeys(layer.region for layer in self.layers)
        return tuple(sorted(found, key=lambda region: region == UNKNOWN_REGION))

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kinds that are there, the costliest first."""
        found = dict.fromkeys(layer.kind for layer in self.layers)
        return tuple(sorted(found, key=lambda kind: -self.share(kind=kind)))

    def share(self, *, region: str | None = None, kind: LayerKind | None = None) -> float:
        """Give the share in 0..1 of the layers' time, of one region or one kind or both; 0 where none took any."""
        total = self.total_ms
        chosen = (x for x in self.layers if region in (None, x.region) and kind in (None, x.kind))
        return sum(layer.median_ms for layer in chosen) / total if total else 0.0

    @property
    def unknown(self) -> float:
        """Share of the time in layers whose region is not known."""
        return self.share(region=UNKNOWN_REGION)
