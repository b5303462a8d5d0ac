"""Records of a mixed-precision search: trials with some layer groups in float, and the decision for each group.

Latencies here are estimates from the layer profiles of two engines, never measurements of the mix.
"""

from dataclasses import dataclass

from deploy_kit.records.parity import Drop


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """Size of a layer group.

    Attributes:
        name: Name of the group, e.g. ``denseblock3.denselayer14``.
        macs: Multiply-accumulates of the group for one image.
    """

    name: str
    macs: int


@dataclass(frozen=True, kw_only=True)
class GroupSizes:
    """Sizes of a graph's layer groups.

    Attributes:
        groups: Groups that have weights, in graph order.
    """

    groups: tuple[GroupSize, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One graph with some layer groups left in float, compared with the checkpoint's logits.

    Attributes:
        kept: Names of the groups that stayed in float.
        n: Number of images.
        sqnr_db: Signal-to-quantization-noise ratio of the logits in dB.
        kl: Mean Kullback-Leibler divergence of the softmax from the checkpoint's, in nats.
        agreement: Share of images in 0..1 whose top-1 class is the checkpoint's.
        lost: Number of images that only the checkpoint classifies correctly; without labels, the number of images on
            which the two differ.
        gained: Number of images that only the graph classifies correctly; 0 without labels.
        labelled: Whether `lost` and `gained` were counted by labels.
        drop: The drop in another task than classification, in its score or without labels in agreement; then no
            images are counted in `lost` and `gained`, and there is no `kl`.
    """

    kept: tuple[str, ...]
    n: int
    sqnr_db: float
    kl: float | None
    agreement: float
    lost: int
    gained: int
    labelled: bool
    drop: Drop | None = None


@dataclass(frozen=True, kw_only=True)
class GroupTime:
    """Time of one layer group in two engines.

    Attributes:
        name: Name of the group.
        float_ms: Median time of the group's layers in one run of the float graph's engine, in ms.
        int8_ms: Median time of the group's layers in one run of the INT8 graph's engine, in ms.
    """

    name: str
    float_ms: float
    int8_ms: float

    @property
    def saved_ms(self) -> float:
        """Time that INT8 saves in ms; negative where INT8 is slower."""
        return self.float_ms - self.int8_ms


@dataclass(frozen=True, kw_only=True)
class GroupTimes:
    """Distribution of both engines' time over the layer groups.

    Attributes:
        source: Profiler that gave the times; empty where the engine does not time its layers.
        groups: Times of the groups to which layers could be traced.
        rest: Time of all layers that could not be traced to a group.
        why: Why there are no times; empty where there are.
    """

    source: str
    groups: tuple[GroupTime, ...]
    rest: GroupTime
    why: str = ""

    def saved_ms(self, name: str) -> float | None:
        """Return the time in ms that INT8 saves in one group; None where that is not known."""
        return next((group.saved_ms for group in self.groups if group.name == name), None)

    def total_ms(self, kept: tuple[str, ...]) -> float | None:
        """Estimate the time in ms of a run with these groups in float, without the type conversions at their borders.

        Layers that belong to no group, most of which reorder data for float convolutions, are counted in proportion to
        the share of time in float.

        Args:
            kept: Names of the groups in float.

        Returns:
            Milliseconds; None where the engine does not time its layers.
        """
        if not self.groups:
            return None
        floats = sum(row.float_ms for row in self.groups if row.name in kept)
        share = floats / (sum(row.float_ms for row in self.groups) or 1.0)
        rest = self.rest.int8_ms + share * self.rest.saved_ms
        return rest + floats + sum(row.int8_ms for row in self.groups if row.name not in kept)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Decision for one layer group, with its reasons.

    Attributes:
        group: Name of the group.
        precision: ``int8``, or the float type that the group stays in.
        sqnr_db: SQNR of the logits in dB when only this group is quantized; None where that was not tried.
        kl: Mean Kullback-Leibler divergence in nats when only this group is quantized; None where that was not tried.
        saved_ms: Estimated time in ms that INT8 saves in the group; None where the engine does not time its layers.
        macs: Multiply-accumulates of the group for one image.
        why: Reason for the decision, as a sentence.
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
    """Result of a mixed-precision search.

    Attributes:
        artifact: sha256 of the mixed-precision graph; empty where no mix keeps the budget.
        target: Name of the engine that the graph is for.
        evaluated_in: Name of the engine that computed the logits.
        max_drop_pp: Accuracy budget in percentage points; None where only the sensitivity was requested.
        judged_by: Measure of the drop: ``top-1``, ``agreement`` where the images have no labels, or the task's score.
        images: Name of the set of tuning images.
        n: Number of tuning images.
        n_sensitivity: Number of tuning images, from the first on, on which the sensitivity was measured.
        drop_pp: Drop of the mix in percentage points.
        upper_pp: Upper end of the drop's 95 % confidence interval in percentage points.
        int8_drop_pp: Drop with every group in INT8 in percentage points.
        int8_upper_pp: Upper end of that drop's 95 % confidence interval in percentage points.
        estimated_ms: Estimated latency of the mix in ms; None where the engine does not time its layers.
        int8_ms: Estimated latency with every group in INT8 in ms; None where the engine does not time its layers.
        float_ms: Estimated latency with every group in float in ms; None where the engine does not time its layers.
        times_from: Profiler that gave the times, or why there are none.
        trials: Number of graphs that the search evaluated, including those that the store already had.
        decisions: Decision for each group, in graph order.
        asked: Names of groups and layers that the user keeps in float; a part of a group has no decision of its own.
        found: Whether a mix keeps the budget.
        remark: Sentence that a reader must know beside the numbers; empty if there is none.
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
        """Names of the layers and groups that stay in float."""
        groups = tuple(decision.group for decision in self.decisions if decision.precision != "int8")
        return (*groups, *(name for name in self.asked if not any(f"{name}.".startswith(f"{g}.") for g in groups)))

    @property
    def whole(self) -> str:
        """Description of the graph that `int8_drop_pp` and `int8_ms` belong to."""
        return "everything else in int8" if self.asked else "everything in int8"
