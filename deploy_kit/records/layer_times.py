"""Records of a layer profile: the times of an engine's own layers, and where in the network these layers belong.

Timing each layer slows a run down, so a profile is for shares. Its total stands beside the latency that was measured
without a profiler.
"""

from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["conv", "gemm", "bn_relu", "concat", "pool", "requantize", "copy", "other"]

UNKNOWN_REGION = "unknown"
"""Region of a layer that cannot be traced back to the graph."""


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer as an engine names and times it.

    Attributes:
        name: Name that the engine gives the layer.
        op: Operation as the engine calls it, e.g. ``QLinearConv``.
        origins: Names of the graph's nodes and values that the layer was made from, as far as the engine reveals them.
        samples_ms: Duration in each profiled run in ms; 0 in a run that did not execute the layer.
    """

    name: str
    op: str
    origins: tuple[str, ...]
    samples_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Output of an engine's profiler.

    Attributes:
        source: Profiler that gave the times, e.g. ``ONNX Runtime's profiler``.
        runs_ms: Wall time of each profiled run in ms.
        layers: Layers in order of execution.
    """

    source: str
    runs_ms: tuple[float, ...]
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, kw_only=True)
class ProfiledLayer:
    """One layer with its place in the network.

    Attributes:
        name: Name that the engine gives the layer.
        op: Operation as the engine calls it.
        kind: Operation in the network's terms; ``copy`` moves or reorders data, ``requantize`` changes scale or type.
        region: ``stem``, ``block 1``, ``transition 1``, …, ``head``; ``unknown`` where the layer cannot be traced back
            to the graph.
        total_ms: Time over all profiled runs in ms.
        mean_ms: Mean time of one run in ms.
        median_ms: Median time of one run in ms.
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
    """How an engine's time is distributed over its layers, from separate runs after the latency was measured.

    Attributes:
        source: Profiler that gave the times; empty where there is no profile.
        runs: Number of profiled runs.
        run_ms: Median wall time of a profiled run in ms.
        layers: Layers in order of execution.
        remark: Why there is no profile; empty where there is one.
    """

    source: str
    runs: int
    run_ms: float
    layers: tuple[ProfiledLayer, ...]
    remark: str = ""

    @property
    def total_ms(self) -> float:
        """Sum of the layers' median times in ms: the time that an undisturbed run spends in layers."""
        return sum(layer.median_ms for layer in self.layers)

    @property
    def mean_total_ms(self) -> float:
        """Sum of the layers' mean times in ms; far above `total_ms` where other programs delayed single layers."""
        return sum(layer.mean_ms for layer in self.layers)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions of the layers in order of first execution; ``unknown`` last."""
        regions = dict.fromkeys(layer.region for layer in self.layers)
        return tuple(sorted(regions, key=lambda region: region == UNKNOWN_REGION))

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Kinds of the layers, in descending order of their time."""
        kinds = dict.fromkeys(layer.kind for layer in self.layers)
        return tuple(sorted(kinds, key=lambda kind: -self.share(kind=kind)))

    def share(self, *, region: str | None = None, kind: LayerKind | None = None) -> float:
        """Return the share in 0..1 of the time in layers of this region and this kind; None stands for any."""
        total = self.total_ms
        chosen = (x for x in self.layers if region in (None, x.region) and kind in (None, x.kind))
        return sum(layer.median_ms for layer in chosen) / total if total else 0.0

    @property
    def unknown(self) -> float:
        """Share in 0..1 of the time in layers whose region is not known."""
        return self.share(region=UNKNOWN_REGION)
