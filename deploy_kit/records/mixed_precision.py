"""The nouns of a mix of precisions: what each choice of groups left in float gave, and what was decided for each group.

Latencies here are estimates from the layer profiles of two engines, never measurements of the mix.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """A layer group by its coordinate, and its multiply-accumulates of one image."""

    name: str
    macs: int


@dataclass(frozen=True, kw_only=True)
class GroupSizes:
    """The layer groups of a graph that have weights, in graph order."""

    groups: tuple[GroupSize, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One graph with some groups left in float, held against the checkpoint's answers.

    Attributes:
        kept: Coordinates of what stayed in float.
        n: Number of images.
        sqnr_db: Signal to quantization noise of the logits.
        kl: Mean divergence of the softmax from the checkpoint's, in nats.
        agreement: Share of images with the checkpoint's top-1.
        lost: Images that the checkpoint gets right and the graph does not; without labels, those on which they differ.
        gained: Images that the graph gets right and the checkpoint does not; without labels 0.
        labelled: Whether `lost` and `gained` are by labels.
    """

    kept: tuple[str, ...]
    n: int
    sqnr_db: float
    kl: float
    agreement: float
    lost: int
    gained: int
    labelled: bool


@dataclass(frozen=True, kw_only=True)
class GroupTime:
    """Median ms a run of one group's layers, in the engine of the float graph and in that of the INT8 graph."""

    name: str
    float_ms: float
    int8_ms: float

    @property
    def saved_ms(self) -> float:
        """What INT8 saves; negative where it costs."""
        return self.float_ms - self.int8_ms


@dataclass(frozen=True, kw_only=True)
class GroupTimes:
    """Where the time of both engines goes.

    Attributes:
        source: Where it was read; empty where the engine does not time its layers.
        groups: Of the groups that layers lead to.
        rest: Of all layers that lead to no group.
        why: Why there are none; empty where there are.
    """

    source: str
    groups: tuple[GroupTime, ...]
    rest: GroupTime
    why: str = ""

    def saved_ms(self, name: str) -> float | None:
        """Give what INT8 saves in one group; None where that is not known."""
        return next((group.saved_ms for group in self.groups if group.name == name), None)

    def total_ms(self, kept: tuple[str, ...]) -> float | None:
        """Estimate a run with these groups in float: what changing types at their borders costs is not in it.

        What leads to no group (reordering for float convolutions, most of it) counts by the share of float.
        """
        if not self.groups:
            return None
        floats = sum(row.float_ms for row in self.groups if row.name in kept)
        share = floats / (sum(row.float_ms for row in self.groups) or 1.0)
        rest = self.rest.int8_ms + share * self.rest.saved_ms
        return rest + floats + sum(row.int8_ms for row in self.groups if row.name not in kept)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided for one layer group, and on what grounds.

    Attributes:
        group: Its coordinate.
        precision: ``int8``, or the float type it stays in.
        sqnr_db: Of the logits when only this group is quantized; None where that was not tried.
        kl: Likewise.
        saved_ms: What INT8 saves in it, an estimate; None where the engine does not time its layers.
        macs: Multiply-accumulates of one image.
        why: In words.
    """

    group: str
    precision: str
    sqnr_db: float | None
    kl: float | None
    saved_ms: float | None
    macs: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The mix of precisions that was found, and the way to it.

    Attributes:
        artifact: sha256 of the graph; empty where no mix keeps the budget.
        target: The engine it is for.
        evaluated_in: The engine that computed the logits.
        max_drop_pp: The budget in percentage points; None where only the sensitivity was asked for.
        judged_by: ``top-1``, or ``agreement`` where the images have no labels.
        images: Tuning images.
        n: How many.
        n_sensitivity: How many of them, the first, the sensitivity was measured on.
        drop_pp: Of the mix, in percentage points.
        upper_pp: Upper end of its 95 % interval.
        int8_drop_pp: With everything in INT8.
        int8_upper_pp: Likewise.
        estimated_ms: Of the mix.
        int8_ms: With everything in INT8.
        float_ms: With everything in float.
        times_from: Where the times were read; why there are none.
        trials: Graphs that the search looked at, those that the store had included.
        decisions: One for each group, in graph order.
        asked: Coordinates that stay in float in any case; a part of a group among them has no decision of its own.
        found: Whether the budget is kept.
        remark: What a reader must know; empty if nothing.
    """

    artifact: str
    target: str
    evaluated_in: str
    max_drop_pp: float | None
    judged_by: str
    images: str
    n: int
    n_sensitivity: int
    drop_pp: float
    upper_pp: float
    int8_drop_pp: float
    int8_upper_pp: float
    estimated_ms: float | None
    int8_ms: float | None
    float_ms: float | None
    times_from: str
    trials: int
    decisions: tuple[Decision, ...]
    found: bool
    asked: tuple[str, ...] = ()
    remark: str = ""

    @property
    def kept(self) -> tuple[str, ...]:
        """Coordinates of what stays in float."""
        groups = tuple(decision.group for decision in self.decisions if decision.precision != "int8")
        return (*groups, *(name for name in self.asked if not any(f"{name}.".startswith(f"{g}.") for g in groups)))

    @property
    def whole(self) -> str:
        """Name what `int8_drop_pp` and `int8_ms` are of."""
        return "everything else in int8" if self.asked else "everything in int8"
