"""Records of a check: accuracy drop, flips, scores, consistency, diagnosis. All frozen; `results` has their report."""

from dataclasses import dataclass, field
from typing import Literal

from deploy_kit.records.verdict import NO_LIMIT, Verdict, decide

Outputs = Literal["logits", "softmax", "sigmoid"]
Answer = Literal["kept", "not kept", "too few images to tell"]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Accuracy that an engine loses against the checkpoint on the same images.

    Attributes:
        what: Measure of accuracy: ``top-1``, ``mean AUROC`` where an image has several labels, else the task's, e.g.
            ``mIoU``.
        points: Drop in percentage points; negative where the engine is better.
        low: Lower end of the drop's 95 % confidence interval in percentage points.
        high: Upper end of the drop's 95 % confidence interval in percentage points; this is what a limit judges.
        lost: Number of images that only the checkpoint classifies correctly; None for other measures than top-1.
        won: Number of images that only the engine classifies correctly; None for other measures than top-1.
        p: Two-sided p-value of McNemar's exact test; None for other measures than top-1.
        needed: Number of such images that would show the limit to be kept with a probability of 80 %; None where the
            answer is clear already, or where no number of images would do.
    """

    what: str
    points: float
    low: float
    high: float
    lost: int | None = None
    won: int | None = None
    p: float | None = None
    needed: int | None = None

    def answer(self, limit: float) -> Answer:
        """Compare the drop with a limit in percentage points.

        The upper end of the interval must be within the limit; NaN is within none.
        """
        if not self.points <= limit:
            return "not kept"
        return "kept" if self.high <= limit else "too few images to tell"


@dataclass(frozen=True, kw_only=True)
class Flip:
    """One image whose predicted class differs from the checkpoint's.

    Attributes:
        image: Index of the image in its set.
        name: Name of the image in its set.
        margin: Difference between the checkpoint's largest and second largest output.
        reference: Class index that the checkpoint predicts.
        found: Class index that the engine predicts.
        found_margin: Difference between the engine's largest and second largest output; None where it was not recorded,
            NaN where an output is not finite.
        label: Class index that the image is labelled with; None without labels.
    """

    image: int
    name: str
    margin: float
    reference: int
    found: int
    found_margin: float | None = None
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Images whose predicted class changed, and how certain the checkpoint was about them.

    Attributes:
        n: Number of flips.
        close_margin: 5th percentile of the checkpoint's margins over all images; an image below it is a close call.
        close: Number of flips that are close calls.
        worst: Up to ten flips, those with the largest margin first.
    """

    n: int
    close_margin: float
    close: int
    worst: tuple[Flip, ...]

    @property
    def largest_margin(self) -> float:
        """Largest margin among the flips; 0 where there are none."""
        return self.worst[0].margin if self.worst else 0.0


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Score of one class: its recall, or its AUROC where an image has several labels.

    Attributes:
        index: Index of the class among the outputs.
        name: Name of the class in the image set; empty where it has none.
        n: Number of images with this label.
        reference: Score of the checkpoint in 0..1.
        found: Score of the engine in 0..1.
    """

    index: int
    name: str
    n: int
    reference: float
    found: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of checkpoint and engine on labelled images; all shares are in 0..1.

    Attributes:
        outputs: Kind of the checkpoint's outputs: logits, or probabilities of a softmax or sigmoid, which are used as
            they are.
        measure: Score of a class: ``recall``, or ``AUROC`` where an image has several labels.
        classes: Scores of the classes that have images; for AUROC, of those with positive and negative images.
        top5_reference: Top-5 accuracy of the checkpoint; None for five classes or fewer.
        top5: Top-5 accuracy of the engine; None for five classes or fewer.
        ece_reference: Expected calibration error of the checkpoint.
        ece: Expected calibration error of the engine; NaN where an output is not finite.
        mean_reference: Mean of the checkpoint's class scores.
        mean: Mean of the engine's class scores.
    """

    outputs: Outputs
    measure: Literal["recall", "AUROC"]
    classes: tuple[ClassScore, ...]
    top5_reference: float | None
    top5: float | None
    ece_reference: float
    ece: float
    mean_reference: float
    mean: float

    @property
    def worst(self) -> ClassScore | None:
        """Class with the engine's lowest score; None where no class has a score."""
        return min(self.classes, key=lambda entry: entry.found, default=None)

    @property
    def ece_shift(self) -> float:
        """Expected calibration error of the engine minus that of the checkpoint."""
        return self.ece - self.ece_reference


@dataclass(frozen=True, kw_only=True)
class MaskPicture:
    """Masks of one image as PNGs in base64, at most 96 px wide and high.

    Attributes:
        image: Index of the image in the check set.
        name: Name of the image in its set.
        differing: Share of pixels in 0..1 whose class differs between checkpoint and engine.
        reference: The checkpoint's mask, a color for each class.
        found: The engine's mask.
        difference: Where they differ, in white.
    """

    image: int
    name: str
    differing: float
    reference: str
    found: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class TextDifference:
    """Strings that were decoded of one image.

    Attributes:
        image: Index of the image in the check set.
        name: Name of the image in its set.
        reference: The checkpoint's string.
        found: The engine's.
        label: The label; empty where there is none.
    """

    image: int
    name: str
    reference: str
    found: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """Scores of checkpoint and engine in a task that is no classification.

    Attributes:
        task: Name of the task (`accuracy.tasks`).
        source: Where the task is from: ``stated``, or what it was inferred from.
        agreement_name: Name of `ParityReport.agreement` in this task, e.g. ``pixel agreement``.
        measure: Name of the score, e.g. ``mIoU``.
        reference: Score of the checkpoint in 0..1; None without labels.
        found: Score of the engine in 0..1; None without labels.
        more: (name, of the checkpoint, of the engine) of further scores.
        classes: Scores of the classes that labels have; `ClassScore.n` counts their pixels.
        pictures: The masks that differ most.
        texts: The strings that differ most.
    """

    task: str
    source: str
    agreement_name: str
    measure: str
    reference: float | None = None
    found: float | None = None
    more: tuple[tuple[str, float, float], ...] = ()
    classes: tuple[ClassScore, ...] = ()
    pictures: tuple[MaskPicture, ...] = ()
    texts: tuple[TextDifference, ...] = ()

    @property
    def worst(self) -> ClassScore | None:
        """Class with the engine's lowest score; None where no class has a score."""
        return min(self.classes, key=lambda entry: entry.found, default=None)


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Whether an engine gives the same output for the same image in different runs.

    Differences are the largest absolute difference divided by the engine's largest absolute output.

    Attributes:
        n: Number of images used.
        batch: Batch size of the runs that single images were compared with; 1 where the engine takes one image at a
            time.
        positions: Difference between the positions of one image in a batch.
        batches: Difference between one image alone and in a batch; None where the batch size is 1.
        again: Difference between the first run and later runs of the same images, with another input in between.
        allowed: Largest difference that counts as consistent.
    """

    n: int
    batch: int
    positions: float
    batches: float | None
    again: float
    allowed: float

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentence for each kind of difference that is larger than allowed; NaN counts as larger."""
        kinds = (
            ("the same image at another place in a batch", self.positions),
            (f"an image alone and in a batch of {self.batch}", 0.0 if self.batches is None else self.batches),
            ("the same images run again", self.again),
        )
        return tuple(
            f"not consistent: {runs} differ by {value:.2g} of the largest output, at most {self.allowed:g} allowed"
            for runs, value in kinds
            if not value <= self.allowed
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The part of a check set that a float32 engine computed, and what bounds the others (`accuracy.sampling`).

    Attributes:
        n: Number of images computed.
        deviation: Largest absolute difference of a logit from the checkpoint's on these.
        margin: Smallest difference between the checkpoint's largest and second largest output on the others, whose
            classes are taken to be the checkpoint's.
    """

    n: int
    deviation: float
    margin: float

    @property
    def words(self) -> str:
        """What was computed and what the rest follows from, in one sentence."""
        return (
            f"computed on {self.n:,} images: logits within {self.deviation:.2g} of the checkpoint's; the others have "
            f"top-1 margins of {self.margin:.2g} or more, and their classes are taken to be the checkpoint's "
            "(--every-image computes them)"
        )


@dataclass(frozen=True, kw_only=True)
class EngineOutputs:
    """What an engine computed on a set of images, without labels and limits: these may change, and nothing runs again.

    Attributes:
        path: Path of the file, relative to the store: npy with (n, classes) float32; in other tasks npz with counts of
            each image (`devices.task_comparison`).
        sha256: sha256 of the file.
        n: Number of images.
        settings: (name, value) of the settings that the engine reported.
        consistency: Whether the engine agreed with itself.
    """

    path: str
    sha256: str
    n: int
    settings: tuple[tuple[str, str], ...]
    consistency: Consistency


LOW_TOP1 = 0.5
"""Top-1 below which a network that somebody wants to deploy was probably fed otherwise in training."""


def low_score(top1: float | None, expected: float | None = None) -> str:
    """Say that the checkpoint itself scores low, which a drop against it does not show; empty where it does not.

    Args:
        top1: Top-1 accuracy of the checkpoint in 0..1; None where it is not known.
        expected: Top-1 accuracy in 0..1 that is asked for; what reaches it is not low.
    """
    if top1 is None or top1 >= (LOW_TOP1 if expected is None else min(expected, LOW_TOP1)):
        return ""
    return f"the checkpoint itself is right on only {100 * top1:.1f} % of these images"


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """Accuracy of an engine on labelled images, without anything to compare it with.

    Attributes:
        artifact: sha256 of the engine.
        label: Label of the engine in tables.
        images: Name of the image set.
        n: Number of images.
        top1: Top-1 accuracy in 0..1.
        low: Lower end of Wilson's 95 % confidence interval of `top1`.
        high: Upper end of Wilson's 95 % confidence interval of `top1`.
        top5: Top-5 accuracy in 0..1; None for five classes or fewer.
        min_top1: Least top-1 accuracy in 0..1 to accept; None sets no limit.
        doubts: Sentences on what makes the labels doubtful; with one of them nothing is accepted.
        settings: (name, value) of the settings that the engine reports.
        against: What it was compared with.
        remarks: Sentences that a reader must know beside the numbers.
        files: (name, sha256) of each file of the engine that was given.
        images_sha256: Hash over images, order and labels (`ImageSet.digest`).
        preprocessing: How an image became the input, in words.
    """

    artifact: str
    label: str
    images: str
    n: int
    top1: float
    low: float
    high: float
    top5: float | None
    min_top1: float | None
    doubts: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    against: str = "labels alone: what the checkpoint answers is not known"
    remarks: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    images_sha256: str = ""
    preprocessing: str = field(default="", metadata={"json": "unless default"})

    @property
    def verdict(self) -> Verdict:
        """The verdict: the lower end of the interval must keep the limit, and only its upper end can break it."""
        limit = self.min_top1
        if limit is None:
            return decide(broken=(), doubts=(*self.doubts, f"{NO_LIMIT}: --min-top1 sets one"), limits=())
        said = f"top-1 {100 * self.top1:.4g} % [{100 * self.low:.4g}, {100 * self.high:.4g}] on {self.n:,} images"
        asked = f"at least {100 * limit:g} % asked for"
        broken = (f"{said}, {asked}",) if self.high < limit and not self.doubts else ()
        unshown = (f"too few images to tell: {said}, {asked}",) if self.low < limit <= self.high else ()
        return decide(broken=broken, doubts=(*unshown, *self.doubts), limits=(f"top-1 ≥ {100 * limit:g} %",))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Another preprocessing, tried on the float graph.

    Attributes:
        name: What it changes, e.g. ``pixels 0..255, no mean and std``.
        cure: How to apply it if it is right: flags of `deploykit export`, or a sentence.
        score: Score of the images with this preprocessing, 1 for the best: `Diagnosis.measure` says which.
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
        won: Number of images that this preprocessing scores higher than the present one does: of classes, those that
            it alone is right on.
        lost: Number of images that it scores lower.
        p: Two-sided p-value of the sign test on these two, of classes McNemar's, multiplied by the number of attempts
            (Bonferroni).
    """

    name: str
    cure: str
    score: float = field(metadata={"json was": "top1"})
    low: float
    high: float
    won: int
    lost: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Whether the preprocessing explains a low score.

    Attributes:
        graph: sha256 of the float graph that was run.
        images: Name of the image set.
        n: Number of images used, spread over the classes.
        score: Score with the present preprocessing.
        measure: What the score is, e.g. ``top-1`` or ``mIoU``.
        attempts: Preprocessings that were tried, best first.
        words: Findings, as sentences.
        found: Name of the attempt that is significantly better; empty if none is.
    """

    graph: str
    images: str
    n: int
    score: float = field(metadata={"json was": "top1"})
    attempts: tuple[Attempt, ...]
    words: tuple[str, ...]
    found: str = ""
    measure: str = "top-1"
