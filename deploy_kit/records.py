"""The nouns: frozen records that pass between stages.

A record holds facts and derives the rest: percentiles are properties of samples, `passed` is a property of numbers
and limits. `codec` takes them to JSON and back.
"""

import math
from dataclasses import dataclass
from typing import Literal

from deploy_kit.errors import RecipeError

Kind = Literal["checkpoint", "onnx", "engine"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class DenseBlock:
    """One dense block.

    Attributes:
        layers: Number of dense layers.
        growth: Channels each layer adds (the paper's k).
        bottleneck: Channels between the 1×1 and the 3×3 convolution; None where there is no bottleneck.
    """

    layers: int
    growth: int
    bottleneck: int | None


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec:
    """Everything about a DenseNet that decides its numbers, weights aside.

    Attributes:
        in_channels: Channels of the input image.
        classes: Rows of the classifier.
        stem_channels: Channels after the first convolution.
        stem_kernel: Side of the first convolution's kernel, in px.
        stem_stride: Its stride.
        stem_norm: BN and ReLU follow the first convolution.
        stem_pool: A 3×3 max pool of stride 2 ends the stem.
        blocks: The dense blocks in order.
        transitions: Channels after each transition; one fewer than blocks.
        eps: Epsilon of every BN.
        sources: (fact, where it came from) for each fact that shapes alone do not give.
    """

    in_channels: int
    classes: int
    stem_channels: int
    stem_kernel: int
    stem_stride: int
    stem_norm: bool
    stem_pool: bool
    blocks: tuple[DenseBlock, ...]
    transitions: tuple[int, ...]
    eps: float
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def width(self) -> int:
        """Channels that the classifier reads."""
        last = self.blocks[-1]
        before = self.transitions[-1] if self.transitions else self.stem_channels
        return before + last.layers * last.growth

    @property
    def depth(self) -> int:
        """Layers with weights, counted as the paper does: DenseNet-121 has 121."""
        dense = sum(block.layers * (1 if block.bottleneck is None else 2) for block in self.blocks)
        return 1 + dense + len(self.transitions) + 1

    @property
    def compressed(self) -> bool:
        """Whether a transition gives fewer channels than it reads."""
        width, fewer = self.stem_channels, False
        for block, out in zip(self.blocks, self.transitions, strict=False):
            fewer |= out < width + block.layers * block.growth
            width = out
        return fewer

    @property
    def title(self) -> str:
        """Name it as the paper would, e.g. ``DenseNet-BC-40 (k = 12)``."""
        letters = "B" * any(block.bottleneck is not None for block in self.blocks) + "C" * self.compressed
        family = f"DenseNet-{letters}" if letters else "DenseNet"
        growths = dict.fromkeys(str(block.growth) for block in self.blocks)
        return f"{family}-{self.depth} (k = {', '.join(growths)})"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph: name, dtype as ONNX calls it, shape with text for dynamic axes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the input tensor; it travels with every artifact.

    Attributes:
        height: Rows of the input, in px.
        width: Columns of the input, in px.
        color: Channel order of the tensor.
        mean: Per channel, subtracted after dividing by 255.
        std: Per channel, divided by after the mean is subtracted.
        resize: Length in px that the shorter side is scaled to before a center crop; None where images must
            already have the input's size.
        interpolation: Filter of the resize.
    """

    height: int
    width: int
    color: Literal["gray", "rgb", "bgr"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return 1 if self.color == "gray" else 3

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out.

        Raises:
            RecipeError: A size, a mean or a std that no image can be prepared with.
        """
        if min(self.height, self.width) < 1:
            raise RecipeError(f"preprocess: expected a size of at least 1×1 px, found {self.height}×{self.width}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise RecipeError(
                f"preprocess: '{self.color}' needs {self.channels} values of mean and of std, "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise RecipeError(f"preprocess: expected finite means and positive stds, found {self.mean}, {self.std}")
        if self.resize is not None and self.resize < 1:
            raise RecipeError(f"preprocess: expected a resize to at least 1 px, found {self.resize}")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a built engine really computes in, read from the engine itself.

    Attributes:
        source: Where it was read, e.g. ``OpenVINO runtime model``.
        counts: (operation, dtype, how many) for each pair found.
        remark: What the counts do not cover; empty if nothing.
    """

    source: str
    counts: tuple[tuple[str, str, int], ...]
    remark: str = ""

    def share(self, dtype: str, *, of: str | None = None) -> float:
        """Give the share of operations named `of` (of all, if None) that compute in `dtype`."""
        rows = [row for row in self.counts if of is None or row[0] == of]
        total = sum(row[2] for row in rows)
        return sum(row[2] for row in rows if row[1] == dtype) / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file of the store and its passport.

    Attributes:
        kind: ``checkpoint``, ``onnx`` or ``engine``.
        name: Short name within a recipe, e.g. ``int8``.
        path: Of the main file, relative to the store.
        sha256: Of the file; of all its files where there are several (`store.digest_of`).
        size_bytes: Of all files a target needs.
        precision: What its graph is typed in.
        inputs: Input tensors.
        outputs: Output tensors.
        preprocess: How images become its input.
        stage: The stage that made it.
        parent: sha256 of what it was made from; chains back to the checkpoint.
        engine: The engine it is for, if it is one.
        made_by: (what, value): options and versions that decided it.
        options: Options it was built with, as JSON; it runs with the same.
        proof: What the engine computes in; None before a build.
    """

    kind: Kind
    name: str
    path: str
    sha256: str
    size_bytes: int
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    stage: str
    parent: str
    engine: str | None = None
    made_by: tuple[tuple[str, str], ...] = ()
    options: str = "{}"
    proof: Proof | None = None

    @property
    def label(self) -> str:
        """Name it for a table, e.g. ``int8 · openvino``."""
        return f"{self.name} · {self.engine}" if self.engine else self.name


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What is known of the checkpoint that all artifacts come from.

    Attributes:
        name: As the recipe names it.
        sha256: Of the file.
        size_bytes: Of the file.
        container: The file format.
        spec: The architecture; None where an ONNX file was given instead of a checkpoint.
        parameters: Number of weights, BN statistics not counted.
        remarks: What was done to it while reading.
    """

    name: str
    sha256: str
    size_bytes: int
    container: str
    spec: DenseNetSpec | None
    parameters: int
    remarks: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name the architecture."""
        return self.spec.title if self.spec else "ONNX graph"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export` gives.

    Attributes:
        checkpoint: Where it came from.
        onnx: The graph.
        difference: Largest |difference| to the checkpoint's logits when re-run, relative to the largest |logit|.
        verified_on: What it was re-run on, e.g. ``32 images, batch 1``.
    """

    checkpoint: CheckpointFacts
    onnx: Artifact
    difference: float
    verified_on: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The checkpoint's own logits on a set of images: what every engine is held against.

    Attributes:
        path: npz with ``logits`` (n, classes) float32 and, if labelled, ``labels`` (n,) int64; relative to the store.
        sha256: Of the npz.
        images: The image set, as the recipe names it; ``synthetic`` for seeded noise.
        n: Number of images.
        labelled: Whether top-1 accuracy can be measured.
        top1: The checkpoint's own accuracy in 0..1; None without labels.
        made_by: (what, value), e.g. who computed it.
    """

    path: str
    sha256: str
    images: str
    n: int
    labelled: bool
    top1: float | None
    made_by: tuple[tuple[str, str], ...] = ()


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
class Environment:
    """The machine a number was measured on, and how it was set.

    Attributes:
        host: Operating system, kernel and architecture.
        cpu: Model name.
        isa: Instruction sets that matter for inference, e.g. ``avx512_vnni``.
        cores: Logical cores this process may use.
        memory_gib: Of the machine.
        governor: Clock governor; empty where the machine does not say.
        clock_mhz: Current clock of the first core; 0 where the machine does not say.
        load: One-minute load average.
        gpu: NVIDIA GPU and driver; empty if there is none.
        virtual: Whether the processor says it runs under a hypervisor.
        versions: (library, version).
    """

    host: str
    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_gib: float
    governor: str
    clock_mhz: float
    load: float
    gpu: str
    virtual: bool
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one engine.

    Attributes:
        artifact: sha256 of the engine.
        label: Its name in tables.
        batch: Images per run.
        span: ``compute`` times `run` alone; ``whole`` copying in and out too.
        samples_ms: Every timed run, in order.
        rounds: Index of the first sample of each interleaved round.
        warmup_runs: Runs before the first sample.
        steady: Whether the warm-up became steady before its limit.
        settings: (setting, value) the engine ran with, e.g. threads and inference precision.
        environment: The machine.
        when: UTC time, ISO 8601.
    """

    artifact: str
    label: str
    batch: int
    span: Literal["compute", "whole"]
    samples_ms: tuple[float, ...]
    rounds: tuple[int, ...]
    warmup_runs: int
    steady: bool
    settings: tuple[tuple[str, str], ...]
    environment: Environment
    when: str

    def percentile_ms(self, percent: float) -> float | None:
        """Give a percentile of the samples, linearly interpolated.

        Returns:
            Milliseconds; None where the samples are too few for it: 100 / (100 - percent) · 10 are asked for, so
            p99 needs 1,000.
        """
        needed = 10 * 100 / (100 - percent)
        ordered = sorted(self.samples_ms)
        if len(ordered) + 1e-6 < needed:
            return None
        position = (len(ordered) - 1) * percent / 100
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def by_round(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round."""
        ends = (*self.rounds[1:], len(self.samples_ms))
        return tuple(self.samples_ms[a:b] for a, b in zip(self.rounds, ends, strict=True))


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """How many times faster than the baseline, measured in turns in one run.

    Attributes:
        ratio: Median over rounds of baseline / candidate.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
        baseline: Label of the baseline.
    """

    ratio: float
    low: float
    high: float
    baseline: str

    @property
    def noise(self) -> bool:
        """Whether the interval holds 1: no difference was shown."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine must keep to be accepted; None judges nothing.

    Attributes:
        min_sqnr_db: Signal to quantization noise of the logits.
        min_cosine: Cosine of all logits.
        max_error: Largest |difference| of a logit.
        min_agreement: Share of images with the checkpoint's top-1.
        max_drop: Percentage points of top-1 accuracy that may be lost.
    """

    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    max_error: float | None = None
    min_agreement: float | None = None
    max_drop: float | None = None


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
        drop_pp_interval: Half of the 95 % interval of the paired drop.
        worst_images: Indices of the images with the largest error, worst first.
        limits: What it is judged by.
        settings: (setting, value) the engine ran with.
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

    @property
    def failures(self) -> tuple[str, ...]:
        """Each limit that is not kept, in words; NaN keeps none."""
        limits = self.limits
        rules = (
            ("SQNR", self.sqnr_db, limits.min_sqnr_db, "at least", "dB"),
            ("cosine", self.cosine, limits.min_cosine, "at least", ""),
            ("largest logit error", self.max_error, limits.max_error, "at most", ""),
            ("top-1 agreement", self.agreement, limits.min_agreement, "at least", ""),
            ("top-1 drop", self.drop_pp, limits.max_drop, "at most", "points"),
        )
        found = []
        for what, value, limit, word, unit in rules:
            if limit is None:
                continue
            if value is None:
                found.append(f"{what} cannot be measured: the check images have no labels")
            elif not (value >= limit if word == "at least" else value <= limit):
                digits = 4 if f"{value:.4g}" != f"{limit:.4g}" else 12
                found.append(f"{what} {value:.{digits}g}{unit and ' ' + unit}, {word} {limit:g} asked for")
        if not math.isfinite(self.max_error):
            found.append("a logit is no finite number")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return not self.failures


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """An engine that exists and could not be run here; never a number."""

    artifact: str
    label: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What `bench` gives.

    Attributes:
        measurements: Of the engines measured in turns, in one run.
        not_run: Engines that this machine cannot run.
        failed: Engines that died or refused on the way; a bench with one is not kept.
    """

    measurements: tuple[Measurement, ...]
    not_run: tuple[NotRun, ...] = ()
    failed: tuple[NotRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """A machine to work on.

    Attributes:
        name: As the user calls it.
        link: How it is reached; an entry of the catalogue of links.
        accelerator: What computes there.
    """

    name: str
    link: str
    accelerator: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """How long a stage took, and whether the store already had its result."""

    stage: str
    name: str
    seconds: float
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the report's table: an engine and all that is known of it.

    Attributes:
        label: e.g. ``int8 · openvino``.
        artifact: The engine; None where it could not be built.
        parity: Its check.
        measurement: Its bench.
        speed_up: Against the baseline.
        failed: What went wrong; empty if nothing.
        left_out: Why an optional entry was not tried, e.g. a package that is not installed; empty if it was.
    """

    label: str
    artifact: Artifact | None
    parity: ParityReport | NotRun | None = None
    measurement: Measurement | NotRun | None = None
    speed_up: SpeedUp | None = None
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
        return "accepted" if self.parity.passed else "rejected: " + "; ".join(self.parity.failures)


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
    """

    recipe: str
    checkpoint: CheckpointFacts
    answers: Answers
    difference: float
    lineage: tuple[Artifact, ...]
    passes: tuple[PassRow, ...]
    rows: tuple[Row, ...]
    environment: Environment
    times: tuple[StageTime, ...]
    when: str
    version: str
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every engine that ran kept its limits."""
        return not any(isinstance(row.parity, ParityReport) and not row.parity.passed for row in self.rows)
