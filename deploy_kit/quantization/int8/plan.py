"""Float graph and images → a plan for either writer: groups, statistics, equalized weights, a grid for each group.

The order of its steps matters. What readers cannot tell apart is found before ranges are chosen, as it limits them;
ranges are chosen before channels are equalized, as equalization scales by them. Grids come last: they
hold what equalization has made of the ranges.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from deploy_kit.base.errors import QuantizeError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.int8 import (
    average_pools,
    channel_moves,
    effective_range,
    equalizable,
    equalize,
    observation,
    pixel_grid,
    range_selection,
    threshold_alignment,
)
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.adaptive_rounding import Rounded
from deploy_kit.quantization.int8.channel_moments import Moments, exact, together
from deploy_kit.quantization.int8.effective_range import Interval
from deploy_kit.quantization.int8.equalizable import Freedom
from deploy_kit.quantization.int8.grids import Grid, asymmetric_grid, symmetric_grid
from deploy_kit.quantization.int8.observation import CalibrationContext, ImageStream, Observed
from deploy_kit.quantization.int8.pixel_grid import PixelGrid
from deploy_kit.quantization.int8.range_selection import ChannelRange, RangeMethod, RangeTarget
from deploy_kit.quantization.int8.scale_groups import ScaleGroup, ScaleGroups
from deploy_kit.quantization.ranges import Channels
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations

Rounding: TypeAlias = Literal["nearest", "descent"]

_MIN_OPSET = 13  # Q/DQ with a scale for each channel begin here
# Movers whose moments follow from those of their inputs.
_KEEP_MOMENTS = ("Concat", "Max", "Min", "Relu", "Identity", "AveragePool")


@dataclass(kw_only=True)
class Int8Plan:
    """A float graph, ready to be written as integers.

    Attributes:
        model: The equalized graph.
        groups: Groups of activations that share a grid.
        grids: Grid of each grouped value.
        seen: Statistics of the groups' sources, as equalized, and of values moved to other channels or pixels.
        means: Means (C,) of the results of maxima, minima and ReLUs, as equalized.
        spans: Lowest and highest value per channel to encode, of each source, as equalized.
        rows: What equalization did to each group with a concatenation.
        choices: The choices that it was made with.
        batches: Returns an iterator over the calibration images, (N, C, …) float32, from the start.
        n_images: Number of calibration images.
        known: Moments computed so far; a writer adds those of values that it clips.
        pixels: What the first convolution reads, where the graph's pixels are known.
        kept: Nodes that stay in float (`mixed_precision.keep_in_float`).
        rounded: Integers of weights chosen so far (`weight_rounding`), shared by all copies of the plan.
        on_progress: Called with progress events while weights are rounded.
        fitted: What is added to biases (outputs,), by the name of the node's output (`bias_fit`); shared likewise, but
            not where something stays in float, for which it was not fitted.
    """

    model: ir.Model
    groups: ScaleGroups
    grids: dict[ir.Value, Grid]
    seen: dict[ir.Value, Channels]
    means: dict[ir.Value, np.ndarray]
    spans: dict[ir.Value, ChannelRange]
    rows: tuple[equalize.EqualizedGroup, ...]
    choices: "Int8Choices"
    batches: Callable[[], Iterator[np.ndarray]]
    n_images: int
    known: dict[ir.Value, Moments] = field(default_factory=dict)
    pixels: PixelGrid | None = None
    kept: frozenset[ir.Node] = frozenset()
    rounded: dict[tuple[str, bytes], Rounded] = field(default_factory=dict)
    on_progress: ProgressCallback = no_progress
    fitted: dict[str, np.ndarray] = field(default_factory=dict)

    def moments(self, value: ir.Value) -> Moments:
        """Return the moments of a value: known, observed, or those of its parts where it was moved."""
        if value not in self.known:
            seen, producer = self.seen.get(value), value.producer()
            if seen is not None:
                self.known[value] = exact(seen.mean, seen.std)
            else:
                assert producer is not None
                parts = together([self.moments(part) for part in grouping.activations(producer)])
                self.known[value] = replace(parts, mean=self.means.get(value, parts.mean))
        return self.known[value]


@dataclass(frozen=True, kw_only=True)
class Int8Choices:
    """What a layout decides.

    Attributes:
        passes: Graph passes that the layout needs on top of the default ones.
        signed: int8 around 0 instead of uint8 with a zero point.
        narrow_sums: Keep the sums of two products within 16 bits, for processors that add them so (`sums_of_two`).
        equalized: Give concatenated channels one range first.
        bias_correction: Let biases make up for the mean error of the integers.
        rounding: How weights are rounded: each to the nearest integer, or by the error of the output (`descent`).
        ranging: How the ends of ranges are chosen.
    """

    passes: tuple[str, ...]
    signed: bool = False
    narrow_sums: bool = False
    equalized: bool = True
    bias_correction: bool = True
    rounding: Rounding = "nearest"
    ranging: RangeMethod = field(default_factory=RangeMethod)


@dataclass(frozen=True, kw_only=True)
class PreparedGraph:
    """A float graph in the form that a layout's plans are made of.

    Attributes:
        source: The file it was read from.
        graph: The graph, which plans leave as it is.
    """

    source: Path
    graph: onnx.ModelProto


def make_plan(
    source: Path | PreparedGraph,
    choices: Int8Choices,
    batches: Callable[[], Iterator[np.ndarray]],
    n_images: int,
    *,
    context: CalibrationContext | None = None,
    observe: Callable[..., Observed] = observation.observe_images,
) -> Int8Plan:
    """Plan a graph's integers.

    Args:
        source: A float32 ONNX file, or what `prepare` made of it for the same layout.
        choices: The choices of the layout.
        batches: Returns an iterator over the calibration images, (N, C, …) float32, from the start.
        n_images: Number of images; ranges of few images are widened.
        context: Where statistics are kept, and who is told about progress.
        observe: Gives the statistics of the prepared graph: `observation.observe_images`, or what has them already.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, there are no images, or an activation is
            not finite.
    """
    prepared = source if isinstance(source, PreparedGraph) else prepare(source, choices)
    context = context or CalibrationContext()
    model = ir.serde.deserialize_model(prepared.graph)
    # TensorRT quantizes around 0, where pixels are not.
    pixels = None if choices.signed else pixel_grid.read_pixels(model)
    # TensorRT's integer convolutions write floats: their results need no grid of their own.
    groups = grouping.find_scale_groups(model, results=not choices.signed)
    if not groups.all:
        raise QuantizeError(
            f"{prepared.source}: nothing in it can be quantized",
            hint="it needs a convolution or a Gemm with constant weights",
        )
    # Moved to other channels or pixels, a value's moments are not those of its source: it is observed itself.
    moved = [v for g in groups.all for v in g.values if v not in g.sources and not _made_by(v, *_KEEP_MOMENTS)]
    sources = [v for g in groups.all for v in g.sources] + moved
    clipped = [v for g in groups.all for v in g.values if _made_by(v, "Max", "Min", "Relu") and v not in sources]
    needed = effective_range.intervals(model, groups)
    targets = {
        v: _target(v, found, needed.get(v), choices)
        for group in groups.all
        for found in (equalizable.freedom(group, groups),)
        for v in group.sources
        if v.producer() and (pixels is None or v is not pixels.value)
    }
    histograms = choices.ranging.by_histogram
    observed = observe(
        ir.serde.serialize_model(model),
        ObservedActivations(
            names=_names(sources), means=_names(clipped), histograms=_names(list(targets)) if histograms else ()
        ),
        tuple(targets.values()),
        choices.ranging,
        ImageStream(n=n_images, batches=batches, context=context),
    )
    seen = {v: observed.channels[_name(v)] for v in sources}
    spans = {
        v: range_selection.choose_range(target, seen[v], observed.histograms, choices.ranging, observed.n_images)
        for v, target in targets.items()
    }
    for v, alike in ((v, channel_moves.tied(v)) for v in spans):
        if alike is not None:
            spans[v] = _tied(spans[v], alike)
    plan = Int8Plan(
        choices=choices, batches=batches, n_images=n_images,
        model=model, groups=groups, grids={}, rows=(),
        seen=seen, means={v: observed.means[_name(v)] for v in clipped}, spans=spans, pixels=pixels,
        on_progress=context.on_progress,
    )  # fmt: skip
    if choices.equalized:
        if not choices.signed:
            threshold_alignment.align_spans(groups, seen, spans)
        plan.rows = equalize.equalize_channels(
            model, groups, plan.seen, plan.means, spans, signed=choices.signed, narrow_sums=choices.narrow_sums
        )
    for group in groups.all:
        grid = _grid(group, plan, spans, choices)
        plan.grids.update(dict.fromkeys(group.values, grid))
    return plan


def prepare(source: Path, choices: Int8Choices) -> PreparedGraph:
    """Read a float32 ONNX file and apply the passes of a layout.

    Raises:
        QuantizeError: The operator set is too old.
    """
    model = onnx_file.load(source)
    if onnx_file.opset(model) < _MIN_OPSET:
        raise QuantizeError(
            f"{source}: operator set {onnx_file.opset(model)}; Q/DQ per channel begins at {_MIN_OPSET}",
            hint=f"export with --opset {_MIN_OPSET} or higher",
        )
    onnx_file.expect_flat(model, source)
    # The default passes once more: a file need not come from `simplify`, and one that does hardly changes.
    passes.apply_passes(model, passes.default_passes())
    model = onnx_file.reread(model)  # what hung on constants has a shape now
    passes.apply_passes(model, choices.passes)
    if not choices.signed:
        average_pools.as_convolutions(model)
    return PreparedGraph(source=source, graph=ir.serde.serialize_model(onnx_file.reread(model)))


def _tied(span: ChannelRange, alike: np.ndarray) -> ChannelRange:
    """Give channels that must be scaled alike, (K, n), the range of all of them."""
    low, high = (np.array(end) for end in span)
    low[alike], high[alike] = low[alike].min(1, keepdims=True), high[alike].max(1, keepdims=True)
    return low, high


def _made_by(value: ir.Value, *operators: str) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in operators


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name


def _names(values: list[ir.Value]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(value) for value in values))


def _target(value: ir.Value, found: Freedom, interval: Interval | None, choices: Int8Choices) -> RangeTarget:
    """Describe how the range of an activation is chosen: by channel where a writer scales its channels one by one."""
    producer = value.producer()
    assert producer is not None
    equalized = choices.equalized and found.of(value)
    # `saturate` scales the channels of a BN + ReLU one by one.
    fused = grouping.fused_into(producer) if choices.signed and producer.op_type == "Relu" else None
    saturates = fused is not None and fused.op_type == "BatchNormalization"
    return RangeTarget(name=_name(value), useful=interval, by_channel=equalized or saturates)


def _grid(group: ScaleGroup, plan: Int8Plan, spans: dict[ir.Value, ChannelRange], choices: Int8Choices) -> Grid:
    """Choose the grid of a group: the narrowest that holds the ranges of its sources."""
    if plan.pixels is not None and group.sources == (plan.pixels.value,):
        return plan.pixels.grid
    # The input has no span: its range is never cut.
    ends = [spans.get(v) or (plan.seen[v].low, plan.seen[v].high) for v in group.sources]
    low, high = min(float(a.min()) for a, _ in ends), max(float(b.max()) for _, b in ends)
    if choices.signed:
        return symmetric_grid(max(-low, high))
    return asymmetric_grid(low, high)
