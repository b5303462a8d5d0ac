"""Accuracy of stock and our files on labelled images, by how many images calibrated them."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import child, page
from benchmarks.candidates import Candidate
from benchmarks.page import NONE
from benchmarks.subjects import TEST, Subject
from benchmarks.workshop import Workshop
from deploy_kit import images
from deploy_kit.accuracy import metrics, paired
from deploy_kit.base.errors import EngineCrashError, StageError
from deploy_kit.base.whole_files import digest_of
from deploy_kit.devices import inference
from deploy_kit.machine.environment import library_version
from deploy_kit.stages import reference
from deploy_kit.store import Key

_SIMULATED = 16


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The checkpoint's logits (N, classes), the labels (N,), and the hash of both."""

    logits: np.ndarray
    labels: np.ndarray
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """One file on all images.

    Attributes:
        name: The candidate.
        ours: Whether deploykit made the file.
        calibration_images: That its ranges come from; 0 for float files.
        top1: In 0..1.
        drop_pp: Top-1 lost against the checkpoint, in percentage points.
        low_pp: Lower end of the 95 % interval of the paired difference (`paired.interval`).
        high_pp: Its upper end.
        flips: Share of images whose predicted class is not the checkpoint's.
        sqnr_db: SQNR of the logits, in dB.
        why: Why there are no numbers; empty where there are.
        note: What a reader must know beside them.
    """

    name: str
    ours: bool
    calibration_images: int
    top1: float = 0.0
    drop_pp: float = 0.0
    low_pp: float = 0.0
    high_pp: float = 0.0
    flips: float = 0.0
    sqnr_db: float = 0.0
    why: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The scores on one net.

    Attributes:
        subject: The net.
        images: The check set; none of its images calibrates.
        n: How many images.
        top1: The checkpoint's own.
        scores: One for each candidate.
    """

    subject: str
    images: str
    n: int
    top1: float
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """The nets of the section."""

    nets: tuple[Accuracy, ...]


def measure(
    subject: Subject, candidates: tuple[Candidate, ...], sizes: tuple[int, ...], workshop: Workshop
) -> Accuracy:
    """Score every candidate on the bundled test images, calibrated with each number of images."""
    answers, _ = reference.run(
        subject.source, subject.preprocess, workshop.context, images=images.open_set(TEST, subject.preprocess)
    )
    with np.load(workshop.store.root / answers.path) as data:
        truth = Truth(logits=data["logits"], labels=data["labels"], sha256=answers.sha256)
    scores = []
    for candidate in candidates:
        for n in sizes if candidate.int8 else (0,):
            sys.stderr.write(f"accuracy: {candidate.name}, {n} calibration images\n")
            scores.append(_scored(candidate, subject, n, workshop, truth))
    top1 = float(metrics.top1_hits(truth.logits, truth.labels).mean())
    return Accuracy(subject=subject.name, images=TEST, n=answers.n, top1=top1, scores=tuple(scores))


def render(found: Accuracies) -> str:
    """Show each net's scores, by calibration size."""
    return "\n\n".join(_net(net) for net in found.nets)


def score(unknown: Score, found: np.ndarray, truth: Truth) -> Score:
    """Hold logits (N, classes) against the checkpoint's and the labels."""
    hits = metrics.top1_hits(found, truth.labels)
    drop = paired.top1_drop(metrics.top1_hits(truth.logits, truth.labels), hits)
    return replace(
        unknown,
        top1=float(hits.mean()),
        drop_pp=drop.points,
        low_pp=drop.low,
        high_pp=drop.high,
        flips=1 - metrics.top1_agreement(truth.logits, found),
        sqnr_db=metrics.sqnr_db(truth.logits, found),
    )


def _scored(candidate: Candidate, subject: Subject, n: int, workshop: Workshop, truth: Truth) -> Score:
    """Score one file; the store keeps it, so that a run that was cut short goes on where it was."""
    unknown = Score(name=candidate.name, ours=candidate.ours, calibration_images=n)
    made = workshop.make(candidate, subject, n)
    if made.path is None:
        return replace(unknown, why=made.why)
    path = made.path
    key = Key(
        stage="score",
        name=candidate.name.replace("@", "-"),
        inputs=(digest_of(path), truth.sha256),
        options=[candidate.name, n, candidate.options],
        versions=tuple((name, library_version(name)) for name in (candidate.engine, "deploykit")),
    )

    def make(folder: Path, home: str) -> Score:
        target = inference.InferenceTarget(engine=candidate.engine, path=path, options=candidate.options)
        used = images.open_set(TEST, subject.preprocess)
        found = inference.infer_all(workshop.connection, target, used, subject.preprocess).logits
        note = _simulation(path, found, subject, workshop) if candidate.simulated else ""
        return replace(score(unknown, found, truth), note=note)

    try:
        return workshop.store.produce(Score, key, make)[0]
    except EngineCrashError:
        return replace(unknown, why="crashed")
    except StageError as error:
        return replace(unknown, why=child.plain(str(error)))


def _simulation(path: Path, found: np.ndarray, subject: Subject, workshop: Workshop) -> str:
    """State how far ONNX's own reference evaluator is from the engine that stands in for another."""
    sample = images.open_set(TEST, subject.preprocess).first(_SIMULATED)
    target = inference.InferenceTarget(engine="reference", path=path, options={})
    wanted = inference.infer_all(workshop.connection, target, sample, subject.preprocess).logits
    return f"ONNX's evaluator on {sample.n} images: {metrics.sqnr_db(wanted, found[: sample.n]):.0f} dB"


def _net(net: Accuracy) -> str:
    ordered = sorted(net.scores, key=lambda entry: entry.calibration_images)
    headings = ("file@engine", "by", "calibrated with", "top-1", "drop, pp", "flips", "logit SQNR", "note")
    text = (
        f"The checkpoint's own top-1 on {net.n} images ({net.images}) is {100 * net.top1:.2f} %. The drop is that of "
        "the same images, with its 95 % interval; a flip is a predicted class that is not the checkpoint's."
    )
    return f"### {net.subject}\n\n{text}\n\n{page.table(headings, [_row(entry) for entry in ordered])}"


def _row(entry: Score) -> tuple[str, ...]:
    head = (
        f"**{entry.name}**" if entry.ours else entry.name,
        "deploykit" if entry.ours else "stock",
        str(entry.calibration_images or NONE),
    )
    if entry.why:
        return (*head, NONE, NONE, NONE, NONE, entry.why)
    return (
        *head,
        f"{100 * entry.top1:.2f} %",
        f"{entry.drop_pp:+.2f} [{entry.low_pp:+.2f}, {entry.high_pp:+.2f}]",
        f"{100 * entry.flips:.2f} %",
        f"{entry.sqnr_db:.1f} dB",
        entry.note,
    )
