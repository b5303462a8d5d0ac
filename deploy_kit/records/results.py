"""The nouns that are found out: what passes did, parity, and the report of it all. All frozen.

A record holds facts and derives the rest: `passed` is a property of numbers and limits. Latencies and the machine are
in `measurements`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from deploy_kit.records.artifacts import Artifact, CheckpointFacts, ReferenceLogits
from deploy_kit.records.measurements import Environment, Measurement, NotRun, SpeedUp
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.records.parity import Answer, Consistency, Diagnosis, Drop, Flips, Scores


@dataclass(frozen=True, kw_only=True)
class PassRow:
    """What one graph pass did.

    Attributes:
        name: The pass.
        fired: How many places it changed.
        nodes_before: Nodes before it.
        nodes_after: Nodes after it.
        macs_before: Multiply-accumulates per image before it.
        macs_after: Multiply-accumulates per image after it.
        max_difference: Largest |difference| of the outputs before and after, relative to the largest |output|.
        promise: The most that difference may be.
        refused: (reason, how many places) where the pattern was there and the pass did not hold.
    """

    name: str
    fired: int
    nodes_before: int
    nodes_after: int
    macs_before: int
    macs_after: int
    max_difference: float
    promise: float
    refused: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Simplified:
    """What `simplify` gives: the graph, and what each pass did."""

    onnx: Artifact
    passes: tuple[PassRow, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine must keep to be accepted; None judges nothing.

    Attributes:
        min_sqnr_db: Signal to quantization noise of the logits.
        min_cosine: Cosine of all logits.
        max_error: Largest |difference| of a logit.
        min_agreement: Share of images with the checkpoint's top-1.
        max_drop: Percentage points of top-1 accuracy that may be lost (of mean AUROC with several labels an image); the
            upper end of the drop's 95 % interval must keep it.
        min_top1: Share of images whose label is the largest output.
        max_ece_shift: Points that the expected calibration error may be above the checkpoint's.
    """

    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    max_error: float | None = None
    min_agreement: float | None = None
    max_drop: float | None = None
    min_top1: float | None = None
    max_ece_shift: float | None = None


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """An engine held against the checkpoint's answers.

    Attributes:
        artifact: sha256 of the engine.
        label: Its name in tables.
        n: Number of images.
        images: The image set.
        sqnr_db: Signal to quantization noise of the logits; ``inf`` when equal.
        cosine: Cosine of all logits.
        max_error: Largest |difference| of a logit.
        agreement: Share of images with the checkpoint's top-1.
        top1_reference: Accuracy of the checkpoint in 0..1; None without labels.
        top1: Accuracy of the engine.
        drop_pp: Lost top-1, in percentage points.
        drop_pp_interval: Half the width of the 95 % interval of the paired drop.
        worst_images: Indices of the images with the largest error, worst first.
        limits: What it is judged by.
        settings: (setting, value) the engine ran with.
        drop: The drop with its interval, counts and test; None without labels.
        flips: Images that changed their class; None where an image has several labels.
        scores: What labels say beside top-1; None without labels.
        consistency: Whether the engine agrees with itself.
        diagnosis: Whether the way images are prepared explains the score; None where that was not asked.
        remarks: What a reader must know beside the numbers.
    """

    artifact: str
    label: str
    n: int
    images: str
    sqnr_db: float
    cosine: float
    max_error: float
    agreement: float
    top1_reference: float | None
    top1: float | None
    drop_pp: float | None
    drop_pp_interval: float | None
    worst_images: tuple[int, ...]
    limits: Limits
    settings: tuple[tuple[str, str], ...] = ()
    drop: Drop | None = None
    flips: Flips | None = None
    scores: Scores | None = None
    consistency: Consistency | None = None
    diagnosis: Diagnosis | None = None
    remarks: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Each limit that is not kept, in words; NaN keeps none."""
        limits = self.limits
        shift = None if self.scores is None else 100 * self.scores.ece_shift
        rules = (
            ("SQNR", self.sqnr_db, limits.min_sqnr_db, "at least", "dB"),
            ("cosine", self.cosine, limits.min_cosine, "at least", ""),
            ("largest logit error", self.max_error, limits.max_error, "at most", ""),
            ("top-1 agreement", self.agreement, limits.min_agreement, "at least", ""),
            (f"{self.drop.what if self.drop else 'top-1'} drop", self.drop_pp, limits.max_drop, "at most", "points"),
            ("top-1", self.top1, limits.min_top1, "at least", ""),
            ("shift of the calibration error", shift, limits.max_ece_shift, "at most", "points"),
        )
        found = []
        for what, value, limit, word, unit in rules:
            if limit is None:
                continue
            if value is None:
                found.append(f"{what} cannot be measured: {self._without}")
            elif not (value >= limit if word == "at least" else value <= limit):
                digits = 4 if f"{value:.4g}" != f"{limit:.4g}" else 12
                found.append(f"{what} {value:.{digits}g}{unit and ' ' + unit}, {word} {limit:g} asked for")
        found += [self._untold] if self.drop_answer == "too few images to tell" else []
        if not math.isfinite(self.max_error):
            first = f": image {self.worst_images[0]}" if self.worst_images else ""
            found.append(f"a logit is no finite number{first}")
        return (*found, *(self.consistency.failures if self.consistency else ()))

    @property
    def drop_answer(self) -> Answer | None:
        """What the limit on the drop has to say; None where there is no limit or no drop."""
        limit = self.limits.max_drop
        return None if limit is None or self.drop is None else self.drop.answer(limit)

    @property
    def _untold(self) -> str:
        assert self.drop is not None
        drop, number = self.drop, "no number of images would"
        if drop.needed is not None:
            number = f"about {drop.needed:,} such images would (with a chance of 80 %)"
        return (
            f"too few images to tell: {drop.what} drop {drop.points:.3g} points on these {self.n:,}, up to "
            f"{drop.high:.3g} not ruled out, at most {self.limits.max_drop:g} asked for; {number}"
        )

    @property
    def _without(self) -> str:
        several = self.scores is not None and self.scores.measure == "AUROC"
        return "the check images have several labels each" if several else "the check images have no labels"

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return not self.failures


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """How long a stage took, and whether the store already had its result."""

    stage: str
    name: str
    seconds: float
    reused: bool


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One line of the report's table: an engine and all that is known of it.

    Attributes:
        label: e.g. ``int8 · openvino``.
        artifact: The engine; None where it could not be built.
        parity: Its check.
        measurement: Its bench.
        speed_up: Against the baseline.
        misses: Latency limits that it does not keep, in words.
        failed: What went wrong; empty if nothing.
        left_out: Why an optional entry was not tried, e.g. a package that is not installed; empty if it was.
    """

    label: str
    artifact: Artifact | None
    parity: ParityReport | NotRun | None = None
    measurement: Measurement | NotRun | None = None
    speed_up: SpeedUp | None = None
    misses: tuple[str, ...] = ()
    failed: str = ""
    left_out: str = ""

    @property
    def verdict(self) -> str:
        """Say ``accepted``, ``rejected: …``, ``not run: …``, ``failed: …``, ``left out: …`` or ``not checked``."""
        if self.left_out:
            return f"left out: {self.left_out}"
        if self.failed:
            return f"failed: {self.failed}"
        if self.parity is None:
            return "not checked"
        if isinstance(self.parity, NotRun):
            return f"not run: {self.parity.why}"
        reasons = (*self.parity.failures, *self.misses)
        return "rejected: " + "; ".join(reasons) if reasons else "accepted"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of one deployment.

    Attributes:
        recipe: The recipe's name.
        checkpoint: Where everything comes from.
        answers: What every engine was held against.
        difference: Of the exported graph from the checkpoint, relative to the largest |logit|.
        lineage: Every graph on the way from the checkpoint to the engines.
        passes: What each graph pass did.
        rows: The engines.
        environment: The machine that measured.
        times: How long each stage took.
        when: UTC time, ISO 8601.
        version: Of deploykit.
        remarks: What a reader must know beside the numbers.
        mixes: How the precision of layer groups was chosen, for graphs of the lineage.
    """

    recipe: str
    checkpoint: CheckpointFacts
    answers: ReferenceLogits
    difference: float
    lineage: tuple[Artifact, ...]
    passes: tuple[PassRow, ...]
    rows: tuple[EngineRow, ...]
    environment: Environment
    times: tuple[StageTime, ...]
    when: str
    version: str
    remarks: tuple[str, ...] = ()
    mixes: tuple[Mix, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every engine that ran kept its limits."""
        failing = (isinstance(row.parity, ParityReport) and not row.parity.passed for row in self.rows)
        return not any(failing) and not any(row.misses for row in self.rows)

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why latencies must not be used, each with its engine."""
        timed = (row.measurement for row in self.rows if isinstance(row.measurement, Measurement))
        return tuple(f"{m.label}: {why}" for m in timed for why in m.invalid)


@dataclass(frozen=True, kw_only=True)
class QuantizedBlock:
    """What INT8 made of one dense block: of one group of activations that are concatenated on one grid.

    Attributes:
        name: In graph order, e.g. ``block 1``.
        channels: Of all maps that are concatenated.
        concats: What its concatenations move: ``int8``, or the float type they stay in.
        scale: Step between two integers, where they move integers.
        zero_point: The integer that stands for 0.0.
        spread: Smallest, median and largest half range of the channels before they were given one range.
        not_equalized: Why they were left as they were; empty if they were not.
        maxima: BN + ReLU that became one integer maximum (or minimum).
        depthwise: BN + ReLU that became an integer depthwise convolution.
        floating: BN, or BN + ReLU, that stay in float.
        never: Share of the bounds that never clip: the BN's ReLU is idle there.
        always: Share of the bounds that always do: the channel is constant to that layer.
        macs: Multiply-accumulates of the block's convolutions, one image.
        moved_bytes: Bytes that its concatenations and maxima write, one image.
    """

    name: str
    channels: int
    concats: Literal["int8", "fp16", "fp32"]
    scale: float
    zero_point: int
    spread: tuple[float, float, float]
    not_equalized: str
    maxima: int
    depthwise: int
    floating: int
    never: float
    always: float
    macs: int
    moved_bytes: int
