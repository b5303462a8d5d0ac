"""Records of what stages find out: effects of graph passes, parity with the checkpoint, and the report. All frozen.

A record holds facts and derives the rest: `passed` is a property of numbers and limits. Latencies and the machine are
in `measurements`.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from deploy_kit.records.artifacts import Artifact, CheckpointFacts, ReferenceLogits
from deploy_kit.records.difference import NetworkDifference
from deploy_kit.records.measurements import Environment, Measurement, NotRun, SpeedUp
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.records.parity import Answer, Consistency, Diagnosis, Drop, Flips, Sample, Scores, TaskScores, low_score
from deploy_kit.records.recommendation import Recommendation
from deploy_kit.records.slimming import Slimmed, SlimSearch
from deploy_kit.records.verdict import Verdict, Word, decide

_SEVEREST_FIRST: tuple[Word, ...] = ("rejected", "undecided")


@dataclass(frozen=True, kw_only=True)
class PassRow:
    """Effect of one graph pass.

    Attributes:
        name: Name of the pass.
        fired: Number of places that it changed.
        nodes_before: Number of nodes before the pass.
        nodes_after: Number of nodes after the pass.
        macs_before: Multiply-accumulates per image before the pass.
        macs_after: Multiply-accumulates per image after the pass.
        max_difference: Largest absolute difference between the outputs before and after the pass, divided by the
            largest absolute output.
        promise: Largest `max_difference` that the pass may cause.
        refused: (reason, number of places) where the pattern occurs and the pass cannot be applied.
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
    """Result of the stage `simplify`.

    Attributes:
        onnx: The simplified graph.
        passes: Effect of each pass, in order of application.
    """

    onnx: Artifact
    passes: tuple[PassRow, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that an engine must keep to be accepted; None sets no limit.

    Attributes:
        min_sqnr_db: Least signal-to-quantization-noise ratio of the logits in dB.
        min_cosine: Least cosine similarity of all logits.
        max_error: Largest absolute difference of a logit.
        min_agreement: Least share of images in 0..1 whose top-1 class is the checkpoint's.
        max_drop: Largest drop in percentage points of top-1 accuracy, of mean AUROC where an image has several labels,
            or of the task's score; the upper end of the drop's 95 % confidence interval is what must keep it.
        min_top1: Least top-1 accuracy in 0..1.
        max_ece_shift: Largest increase of the expected calibration error over the checkpoint's in percentage points.
    """

    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    max_error: float | None = None
    min_agreement: float | None = None
    max_drop: float | None = None
    min_top1: float | None = None
    max_ece_shift: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Each limit that is set, e.g. ``SQNR ≥ 15 dB``."""
        return tuple(
            f"{name} {sign} {value:g}{unit and ' ' + unit}"
            for name, sign, value, unit in (
                ("SQNR", "≥", self.min_sqnr_db, "dB"),
                ("cosine", "≥", self.min_cosine, ""),
                ("logit error", "≤", self.max_error, ""),
                ("agreement", "≥", self.min_agreement and 100 * self.min_agreement, "%"),
                ("drop", "≤", self.max_drop, "points"),
                ("top-1", "≥", self.min_top1 and 100 * self.min_top1, "%"),
                ("calibration error", "≤", self.max_ece_shift, "points more"),
            )
            if value is not None
        )


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Comparison of an engine's logits with the checkpoint's on the same images.

    Attributes:
        artifact: sha256 of the engine.
        label: Label of the engine in tables.
        n: Number of images.
        images: Name of the image set.
        sqnr_db: Signal-to-quantization-noise ratio of the logits in dB; ``inf`` where they are equal.
        cosine: Cosine similarity of all logits.
        max_error: Largest absolute difference of a logit.
        agreement: Share of images in 0..1 whose top-1 class is the checkpoint's; in other tasks `TaskScores` names it.
        top1_reference: Top-1 accuracy of the checkpoint in 0..1; None without labels, or where an image has several.
        top1: Top-1 accuracy of the engine in 0..1; None without labels, or where an image has several.
        drop_pp: Drop in percentage points of top-1 accuracy, of mean AUROC where an image has several labels, or of the
            task's score; None without labels.
        drop_pp_interval: Half the width of the drop's 95 % confidence interval in percentage points.
        worst_images: Indices of the images with the largest error, in descending order.
        limits: Limits that judge the engine.
        settings: (name, value) of the settings that the engine reports.
        drop: The drop with its interval, counts and test; None without labels.
        flips: Images whose predicted class changed; None where an image has several labels, or for a single output.
        scores: Further scores on labelled images; None without labels.
        consistency: Whether the engine is consistent with itself; None where that was not examined.
        diagnosis: Whether the preprocessing explains a low score; None where no diagnosis was requested.
        remarks: Sentences that a reader must know beside the numbers.
        doubts: Sentences on what makes the images or their labels doubtful; with one of them nothing is accepted.
        task: Scores of a task that is no classification; `agreement` and `drop` are in its measure then.
        sample: The part of the images that a float32 engine computed: `sqnr_db`, `cosine` and `max_error` are of these;
            None where it computed all.
        against: What it was compared with: a checkpoint with its sha256, or golden outputs; empty within a report.
        worst_names: Names of `worst_images`; empty in records of earlier versions.
        files: (name, sha256) of each file of an engine that was given as a file; empty within a report, which names
            its own, as it does the images.
        images_sha256: Hash over images, order and labels (`ImageSet.digest`) where a file was given; empty within a
            report.
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
    doubts: tuple[str, ...] = ()
    task: TaskScores | None = None
    sample: Sample | None = None
    against: str = ""
    worst_names: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = field(default=(), metadata={"json": "unless default"})
    images_sha256: str = field(default="", metadata={"json": "unless default"})
    preprocessing: str = field(default="", metadata={"json": "unless default"})

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentence for each limit that is not shown to be kept; NaN keeps none."""
        broken, unshown = self._judged
        return (*broken, *unshown)

    @property
    def verdict(self) -> Verdict:
        """The verdict; limits on labels, and what a wrong preprocessing changes, are not judged on doubtful images."""
        broken, unshown = self._judged
        low = low_score(self.top1_reference, self.limits.min_top1)
        why = "its preprocessing or the labels are in doubt, unless --min-top1 says that no more is expected"
        doubts = (*([f"{low}: {why}"] if low else []), *unshown, *self._all_doubts)
        return decide(broken=broken, doubts=doubts, limits=self.limit_words)

    @property
    def limit_words(self) -> tuple[str, ...]:
        """Each limit that is set, and on how many images it was judged where these are not all."""
        words = self.limits.words
        return (*words, f"on {self.sample.n:,} of {self.n:,} images") if words and self.sample else words

    @property
    def _all_doubts(self) -> tuple[str, ...]:
        found = self.diagnosis.found if self.diagnosis else ""
        return (*self.doubts, *((f"the images look wrongly preprocessed: {found} scores better",) if found else ()))

    @property
    def _judged(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sentences on limits that are broken, and on those that the images cannot show to be kept or broken."""
        limits = self.limits
        shift = None if self.scores is None else 100 * self.scores.ece_shift
        drop = f"{self.drop.what if self.drop else self.task.measure if self.task else 'top-1'} drop"
        agreement = self.task.agreement_name if self.task else "top-1 agreement"
        rules = (
            ("SQNR", self.sqnr_db, limits.min_sqnr_db, "at least", "dB", False),
            ("cosine", self.cosine, limits.min_cosine, "at least", "", False),
            ("largest logit error", self.max_error, limits.max_error, "at most", "", False),
            (agreement, self.agreement, limits.min_agreement, "at least", "", False),
            (drop, self.drop_pp, limits.max_drop, "at most", "points", True),
            ("top-1", self.top1, limits.min_top1, "at least", "", True),
            ("shift of the calibration error", shift, limits.max_ece_shift, "at most", "points", True),
        )
        broken, unshown = list[str](), list[str]()
        for name, value, limit, word, unit, by_labels in rules:
            if limit is None:
                continue
            if value is None:
                unshown.append(f"{name} cannot be measured: {self._why_no_accuracy}")
            elif not (value >= limit if word == "at least" else value <= limit):
                digits = 4 if f"{value:.4g}" != f"{limit:.4g}" else 12  # a value must not print as its own limit
                missed = f"{name} {value:.{digits}g}{unit and ' ' + unit}, {word} {limit:g} asked for"
                if name == drop and self.drop is not None and self.drop.low <= limit:
                    missed += f"; on these {self.n:,} images as little as {self.drop.low:.3g} is not ruled out"
                (unshown if by_labels and self._all_doubts else broken).append(missed)
        unshown += [self._too_few_images] if self.drop_answer == "too few images to tell" else []
        if not math.isfinite(self.max_error):
            named = self.worst_names or tuple(map("image {}".format, self.worst_images))
            broken.append("a logit is no finite number" + "".join(f": {name}" for name in named[:1]))
        return (*broken, *(self.consistency.failures if self.consistency else ())), tuple(unshown)

    @property
    def drop_answer(self) -> Answer | None:
        """Whether the limit on the drop is kept; None where there is no limit or no drop."""
        limit = self.limits.max_drop
        return None if limit is None or self.drop is None else self.drop.answer(limit)

    @property
    def _too_few_images(self) -> str:
        assert self.drop is not None
        drop, number = self.drop, "no number of images would"
        if drop.needed is not None:
            number = f"about {drop.needed:,} such images would (with a chance of 80 %)"
        return (
            f"too few images to tell: {drop.what} drop {drop.points:.3g} points on these {self.n:,}, up to "
            f"{drop.high:.3g} not ruled out, at most {self.limits.max_drop:g} asked for; {number}"
        )

    @property
    def _why_no_accuracy(self) -> str:
        if self.task is not None and self.drop is not None:
            return f"task '{self.task.task}' is scored by {self.task.measure}"
        several = self.scores is not None and self.scores.measure == "AUROC"
        return "the check images have several labels each" if several else "the check images have no labels"

    @property
    def passed(self) -> bool:
        """Whether the engine is accepted: every limit is shown to be kept, on images that nothing casts doubt on."""
        return self.verdict.word == "accepted"


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Duration of one stage.

    Attributes:
        stage: Name of the stage, e.g. ``quantize``.
        name: Name of the artifact that the stage worked on.
        seconds: Wall time in seconds.
        reused: Whether the store already had the result.
    """

    stage: str
    name: str
    seconds: float
    reused: bool


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One row of the report's table: an engine with its check and its bench.

    Attributes:
        label: Label of the engine, e.g. ``int8 · openvino``.
        artifact: The engine; None where it could not be built.
        parity: Result of its check; None where it was not checked.
        measurement: Result of its bench; None where it was not measured.
        speed_up: Speed-up over the baseline; None where there is none.
        misses: Latency limits that it does not keep, as sentences.
        failed: Error that stopped it; empty if there was none.
        left_out: Why an optional entry was not tried, e.g. because a package is not installed; empty if it was tried.
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
    def judged(self) -> Verdict | None:
        """The verdict on accuracy and latency together; None where the engine was not checked."""
        if self.left_out or self.failed or not isinstance(self.parity, ParityReport):
            return None
        verdict = self.parity.verdict
        invalid = self.measurement.invalid if isinstance(self.measurement, Measurement) else ()
        if invalid:  # it keeps and breaks no limit
            return verdict.with_doubts(f"latency INVALID: {why}" for why in invalid)
        return verdict.with_broken(self.misses)

    @property
    def accurate(self) -> bool:
        """Whether its accuracy is accepted, whatever its latency is."""
        return self.judged is not None and isinstance(self.parity, ParityReport) and self.parity.passed

    @property
    def verdict(self) -> str:
        """The verdict in one line, or ``not run: …``, ``failed: …``, ``left out: …`` or ``not checked``."""
        if self.left_out:
            return f"left out: {self.left_out}"
        if self.failed:
            return f"failed: {self.failed}"
        if isinstance(self.parity, NotRun):
            return f"not run: {self.parity.why}"
        return "not checked" if self.judged is None else self.judged.text


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A check image in small, so that a page can show it without the image set.

    Attributes:
        image: Index of the image in the check set.
        name: Name of the image in its set.
        data: JPEG of at most 96×96 px, in base64.
    """

    image: int
    name: str
    data: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Report of one deployment, from the checkpoint to the measured engines.

    Attributes:
        recipe: Name of the recipe.
        checkpoint: The checkpoint that was deployed.
        answers: Logits of the checkpoint that every engine was compared with.
        difference: Largest absolute difference between the logits of the exported graph and of the checkpoint, divided
            by the largest absolute logit.
        lineage: Graphs on the way from the checkpoint to the engines.
        passes: Effect of each graph pass.
        rows: One row for each engine.
        environment: Machine on which the engines were measured.
        times: Duration of each stage.
        when: Time of the report, UTC in ISO 8601.
        version: Version of deploykit.
        remarks: Sentences that a reader must know beside the numbers.
        mixes: Mixed-precision searches that graphs of the lineage came from.
        device: Name of the device on which engines were built, checked and measured.
        recipe_yaml: The whole recipe as YAML; empty in reports of earlier versions.
        command: Command that makes the report again; empty where it is not known.
        differences: Errors along the layers of artifacts of this report, as far as somebody looked.
        thumbnails: Check images whose prediction changed.
        recommendation: The engine to deploy, and why not another one; None in reports of earlier versions.
        slim_searches: Searches within an accuracy budget that a slimmed graph of the lineage came from.
        slimmed: What was kept in each slimmed graph of the lineage.
        delivered: (label, name of its file) of each engine that was copied beside the report.
        parts: (sha256 of the engine; ending, bytes and sha256 of the file) for each file of each engine.
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
    device: str = "local"
    recipe_yaml: str = ""
    command: str = ""
    differences: tuple[NetworkDifference, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()
    recommendation: Recommendation | None = None
    slim_searches: tuple[SlimSearch, ...] = ()
    slimmed: tuple[Slimmed, ...] = ()
    delivered: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, str, int, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether at least one engine was checked, all that were are accepted, and none failed.

        Latencies that are not valid are left to `invalid`.
        """
        if any(row.failed for row in self.rows):
            return False
        kept = [row.accurate and not row.misses for row in self.rows if row.judged is not None]
        return bool(kept) and all(kept)

    @property
    def verdict(self) -> Word:
        """The word on all engines that were checked: ``rejected`` before ``undecided``; the latter where none was."""
        words = {row.judged.word for row in self.rows if row.judged is not None}
        return next((word for word in _SEVEREST_FIRST if word in words), "accepted") if words else "undecided"

    @property
    def invalid(self) -> tuple[str, ...]:
        """Reasons why latencies must not be used, each with the engine's label."""
        timed = (row.measurement for row in self.rows if isinstance(row.measurement, Measurement))
        return tuple(f"{m.label}: {why}" for m in timed for why in m.invalid)

    def _repr_html_(self) -> str:
        """Return the report as HTML, which notebooks show in place of the record."""
        from deploy_kit.records.report_html import report_html

        return report_html(self)


@dataclass(frozen=True, kw_only=True)
class FloatNodes:
    """Nodes of one operator that compute in float in a quantized graph, for one reason.

    Attributes:
        operator: Their operator.
        n: Number of them.
        why: Why they do.
        first: Name of the first one.
    """

    operator: str
    n: int
    why: str
    first: str


@dataclass(frozen=True, kw_only=True)
class QuantizedBlock:
    """How one dense block was quantized: a group of activations that are concatenated and share one scale.

    Attributes:
        name: Name of the block, numbered in graph order, e.g. ``block 1``.
        channels: Number of channels of all concatenated feature maps.
        concats: Type in which the block's concatenations move data: ``int8``, or the float type they stay in.
        scale: Quantization scale of the concatenations, where they move integers.
        zero_point: Quantization zero point of the concatenations, where they move integers.
        spread: Smallest, median and largest half range of the channels before equalization.
        not_equalized: Why the channels were not equalized; empty where they were.
        maxima: Number of BN + ReLU pairs that became one integer maximum (or minimum).
        depthwise: Number of BN + ReLU pairs that became an integer depthwise convolution.
        floating: Number of BNs, with or without a ReLU, that stay in float.
        never: Share in 0..1 of the bounds that never clip, where the ReLU has no effect.
        always: Share in 0..1 of the bounds that always clip, where the channel is constant to that layer.
        macs: Multiply-accumulates of the block's convolutions for one image.
        moved_bytes: Bytes that the block's concatenations and maxima write for one image.
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
