"""Where two forms of one network begin to differ: the same images through both, held together at points within them.

Not every tensor at once: an output in the middle of a graph may keep a runtime from fusing what stands around it, and
then other numbers are compared than those that count. So a few points are observed in a session, and the logits of that
session are held against those of one that observes nothing; where they differ, each point gets a session of its own,
and what still disturbs is said.

Where both have the same dense blocks, the ends of blocks come first. Where two of them part, the layers of the block in
between follow. Where none do, all layers follow: a fault may drown on its way to the end of a block, where hundreds of
channels come together.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy_kit.analysis.difference import points, rule, verdict
from deploy_kit.analysis.difference.subjects import Subject, SubjectSession, find_subject, opened_subject
from deploy_kit.base.errors import InputError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.context import Context
from deploy_kit.images import SYNTHETIC, ImageSet, ImageSource
from deploy_kit.machine.environment import library_versions
from deploy_kit.records.artifacts import BareInput, Precision, Preprocess
from deploy_kit.records.difference import NetworkDifference, PointDifference

__all__ = ["NetworkDifference", "PointDifference", "Subject", "find_difference", "find_subject"]

VERSION = "3"
N_IMAGES = 16
_TOGETHER = 8
_SHARED = 0.8  # of the points by name: networks of one family share many
_COARSER: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


def find_difference(
    first: Subject, second: Subject, context: Context, *, images: ImageSource
) -> tuple[NetworkDifference, bool]:
    """Find where two subjects part.

    Args:
        first: What the other is held against.
        second: The other.
        context: Runs engines; torch runs in this process.
        images: Set whose first images both see.

    Returns:
        The answer, and whether the store had it.

    Raises:
        InputError: The two are not forms of one network.
        EngineCrashError: Native code died.
    """
    first, second = _alike(first, second)
    preprocess = first.input if isinstance(first.input, Preprocess) else second.input
    source = ImageSource(name=SYNTHETIC) if isinstance(preprocess, BareInput) else images
    image_set, connection = source.open(preprocess).first(N_IMAGES), context.connection

    def make(folder: Path, home: str) -> NetworkDifference:
        with (
            opened_subject(first, _inputs(first, image_set, preprocess), connection) as one,
            opened_subject(second, _inputs(second, image_set, preprocess), connection) as other,
        ):
            return _DifferenceSearch(first, second, (one, other), context.on_progress).difference(image_set)

    return context.produce(
        NetworkDifference,
        make,
        stage="difference",
        name="difference",
        inputs=(first.digest, second.digest, image_set.digest),
        options=[(one.label, one.target, preprocess) for one in (first, second)],
        versions=(
            ("stage", VERSION),
            ("cpu", connection.environment.cpu),
            *library_versions(),
            *connection.environment.versions,
        ),
    )


def _inputs(subject: Subject, image_set: ImageSet, preprocess: Preprocess | BareInput) -> np.ndarray:
    """Return the images as a subject takes them: one may take pixels where the other takes tensors."""
    taken = preprocess.normalized
    if isinstance(taken, Preprocess) and isinstance(subject.input, Preprocess):
        taken = replace(taken, input_pixels=subject.input.input_pixels)
    return next(image_set.batches(taken, N_IMAGES))


def _alike(first: Subject, second: Subject) -> tuple[Subject, Subject]:
    """Return two forms of one network with the points that both have: by structure, or else by name.

    Raises:
        InputError: They take other inputs, or are no forms of one network.
    """
    if first.shape != second.shape:
        shapes = " and ".join("×".join(map(str, one.shape)) for one in (first, second))
        raise InputError(f"{first.label} and {second.label} take other inputs: {shapes}")
    layers = [[name for name in one.points if name.startswith("denseblock")] for one in (first, second)]
    unlike = bool(layers[0] and layers[1]) and layers[0] != layers[1]
    shared = [name for name in first.named if name in second.named]
    if len(shared) > _SHARED * max(len(first.named), len(second.named)) and (unlike or not any(layers)):
        return replace(first, points=first.named), replace(second, points=second.named)
    if unlike:
        counts = " and ".join(str(len(one)) for one in layers)
        raise InputError(
            f"{first.label} and {second.label} are not forms of one network: "
            f"they have {counts} convolutions in dense blocks"
        )
    return first, second


class _DifferenceSearch:
    """The points of two subjects, observed a few at a time."""

    def __init__(
        self,
        first: Subject,
        second: Subject,
        sessions: tuple[SubjectSession, SubjectSession],
        on_progress: ProgressCallback,
    ) -> None:
        self.subjects, self.sessions, self.on_progress = (first, second), sessions, on_progress
        self.names = tuple(name for name in first.points if name in second.points)
        self.precision = max((first.precision, second.precision), key=_COARSER.index)
        self.quiet = tuple(session.observe(())[0] for session in sessions)
        self.found: dict[str, PointDifference] = {}
        self.count = 0

    def difference(self, image_set: ImageSet) -> NetworkDifference:
        """Look at the ends of blocks, then within the one that is suspect, or within all."""
        self.look(name for name in self.names if not name.startswith("denseblock"))
        suspect, _ = rule.parted(self.rows())
        self.look(points.block_before(suspect.point, self.names) if suspect else self.names)
        rows = self.rows()
        part, sign = rule.parted(rows)
        first, second = self.subjects
        answer = NetworkDifference(
            first=first.label,
            second=second.label,
            sha256=(first.digest, second.digest),
            computed_by=(first.how, second.how),
            n=image_set.n,
            images=image_set.name,
            points=rows,
            unlike=tuple(name for name in {**first.points, **second.points} if name not in self.names),
            part=part.point if part else "",
            sign=sign,
            every_layer=len(rows) == len(self.names),
            verdict="",
        )
        return replace(answer, verdict=verdict.verdict(answer, self.precision))

    def rows(self) -> tuple[PointDifference, ...]:
        """Return what was found so far, in order, with what was to be expected."""
        ordered = [self.found[name] for name in self.names if name in self.found]
        expected = rule.expected_db({row.point: row.sqnr_db for row in ordered}, self.precision)
        return tuple(replace(row, expected_db=expected[row.point]) for row in ordered)

    def look(self, names: Iterable[str]) -> None:
        """Observe the points that were not yet, a few in a session."""
        left = [name for name in names if name not in self.found]
        for start in range(0, len(left), _TOGETHER):
            self.on_progress(ProgressEvent(stage="check", text="looking within", done=start, total=len(left)))
            self.observe(left[start : start + _TOGETHER])

    def observe(self, names: Sequence[str]) -> None:
        """Observe points together; one by one where that changes the logits."""
        seen = [session.observe(tuple(names)) for session in self.sessions]
        undisturbed_db = min(
            _undisturbed_db(quiet, logits) for quiet, (logits, _) in zip(self.quiet, seen, strict=True)
        )
        if undisturbed_db < math.inf and len(names) > 1:
            for name in names:
                self.observe([name])
            return
        self.count += 1
        for name in names:
            self.found[name] = self.compared(name, [arrays[name] for _, arrays in seen], undisturbed_db)

    def compared(self, name: str, arrays: Sequence[np.ndarray], undisturbed_db: float) -> PointDifference:
        """Hold what both have at one point together."""
        both = [subject.points[name] for subject in self.subjects]
        one, other = (points.restored(array, point) for array, point in zip(arrays, both, strict=True))
        if one.shape != other.shape:
            labels = " and ".join(subject.label for subject in self.subjects)
            raise InputError(f"{labels} are not forms of one network: {one.shape[1:]} and {other.shape[1:]} at {name}")
        one, other = points.in_common(one, other, both)
        channel, channel_db = rule.worst_channel(one, other)
        return PointDifference(
            point=name,
            sqnr_db=rule.layer_sqnr_db(one, other),
            expected_db=0.0,
            max_error=float(np.abs(one - other).max()),
            channel=channel,
            channel_db=channel_db,
            session=self.count,
            undisturbed_db=undisturbed_db,
        )


def _undisturbed_db(quiet: np.ndarray, observed: np.ndarray) -> float:
    same = np.array_equal(quiet, observed, equal_nan=True)
    return (
        math.inf
        if same
        else rule.layer_sqnr_db(*(logits[:, :, None].astype(np.float64) for logits in (quiet, observed)))
    )
