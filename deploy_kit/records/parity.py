"""The nouns of a check: drop, flips, scores, consistency, diagnosis. All frozen; `results` holds their report."""

from dataclasses import dataclass
from typing import Literal

Outputs = Literal["logits", "softmax", "sigmoid"]
Answer = Literal["kept", "not kept", "too few images to tell"]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """What an engine loses against the checkpoint on the same images.

    Attributes:
        what: ``top-1`` or, with several labels an image, ``mean AUROC``.
        points: Lost, in percentage points; negative where the engine is better.
        low: Lower end of the 95 % interval, in points.
        high: Its upper end: what a limit judges.
        lost: Images that only the checkpoint gets right; None for AUROC.
        won: Images that only the engine gets right.
        p: Exact McNemar test, two-sided.
        needed: Images of this kind that would keep the limit with a chance of 80 %; None where nothing is to be
            settled, or no number could.
    """

    what: Literal["top-1", "mean AUROC"]
    points: float
    low: float
    high: float
    lost: int | None = None
    won: int | None = None
    p: float | None = None
    needed: int | None = None

    def answer(self, limit: float) -> Answer:
        """Hold the interval against a limit in points: the upper end must keep it; NaN keeps none."""
        if not self.points <= limit:
            return "not kept"
        return "kept" if self.high <= limit else "too few images to tell"


@dataclass(frozen=True, kw_only=True)
class Flip:
    """One image whose predicted class is not the checkpoint's.

    Attributes:
        image: Its index.
        name: As the image set calls it.
        margin: The checkpoint's largest output minus its second largest.
        reference: The checkpoint's class.
        found: The engine's.
    """

    image: int
    name: str
    margin: float
    reference: int
    found: int


@dataclass(frozen=True, kw_only=True)
class Flips:
    """The images that changed their predicted class, and how sure the checkpoint was of them.

    Attributes:
        n: How many.
        close_margin: 5th percentile of the checkpoint's margins over all images: below it lie its close calls.
        close: How many flips are close calls.
        worst: Up to ten, the largest margin first.
    """

    n: int
    close_margin: float
    close: int
    worst: tuple[Flip, ...]

    @property
    def largest_margin(self) -> float:
        """The largest margin among the flips; 0 where there are none."""
        return self.worst[0].margin if self.worst else 0.0


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its recall, or with several labels an image its AUROC.

    Attributes:
        index: Place among the outputs.
        name: As the image set calls it; empty where it does not.
        n: Images with this label.
        reference: The checkpoint's score in 0..1.
        found: The engine's.
    """

    index: int
    name: str
    n: int
    reference: float
    found: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What labels say of checkpoint and engine; shares in 0..1.

    Attributes:
        outputs: What the checkpoint's outputs are: logits, or already probabilities (then taken as they are).
        measure: Of a class: ``recall``, or ``AUROC`` where an image has several labels.
        classes: Those with a score: with images, for AUROC with both outcomes.
        top5_reference: Share of images whose label is among the five largest; None from five classes down.
        top5: The engine's.
        ece_reference: Expected calibration error of the checkpoint.
        ece: The engine's; NaN where an output is no finite number.
        mean_reference: Mean of the classes' scores.
        mean: The engine's.
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
        """The class with the engine's lowest score."""
        return min(self.classes, key=lambda entry: entry.found, default=None)

    @property
    def ece_shift(self) -> float:
        """How much the engine's calibration error is above the checkpoint's."""
        return self.ece - self.ece_reference


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Whether an engine agrees with itself: largest differences, relative to its largest |output|.

    Attributes:
        n: Images used.
        batch: Images in the runs that one image alone was held against; 1 where the engine takes one at a time.
        positions: Between the places of one image in a batch.
        batches: Between one image alone and in a batch; None where the batch is 1.
        again: Between the first run and those after it, with another input between.
        allowed: The most each may be.
    """

    n: int
    batch: int
    positions: float
    batches: float | None
    again: float
    allowed: float

    @property
    def failures(self) -> tuple[str, ...]:
        """Each way in which the engine contradicts itself, in words."""
        kinds = (
            ("the same image at another place in a batch", self.positions),
            (f"an image alone and in a batch of {self.batch}", 0.0 if self.batches is None else self.batches),
            ("the same images run again", self.again),
        )
        return tuple(
            f"not consistent: {what} differ by {value:.2g} of the largest output, at most {self.allowed:g} allowed"
            for what, value in kinds
            if not value <= self.allowed
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way to prepare the images, tried on the float graph.

    Attributes:
        name: What is changed.
        cure: What to do if it is right: flags of `deploykit export`, or a sentence.
        top1: Its accuracy in 0..1.
        low: Lower end of Wilson's 95 % interval.
        high: Its upper end.
        won: Images right only so.
        lost: Images right only as they are prepared now.
        p: Exact McNemar test against the preparation now, two-sided, times the number of attempts (Bonferroni).
    """

    name: str
    cure: str
    top1: float
    low: float
    high: float
    won: int
    lost: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Whether the way images are prepared explains a score.

    Attributes:
        graph: sha256 of the float graph.
        images: The image set.
        n: Images tried, spread over the classes.
        top1: As the images are prepared now.
        attempts: What was tried, best first.
        words: What was found, in sentences.
        found: Name of the attempt that is better beyond noise; empty if none is.
    """

    graph: str
    images: str
    n: int
    top1: float
    attempts: tuple[Attempt, ...]
    words: tuple[str, ...]
    found: str = ""
