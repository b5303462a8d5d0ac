"""Candidates measured in turns: all loaded in one process, in an order drawn anew each round, over several processes.

One process for all, so that a slow window of the machine meets every candidate alike; several processes, because a
compiled instance can be slow as a whole. A file that kills its process is found out beforehand, in a child of its own.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import child
from benchmarks.candidates import Candidate
from benchmarks.records import Entry, Race
from benchmarks.subjects import CALIBRATION, Subject
from benchmarks.workshop import Made, Workshop
from deploy_kit import images
from deploy_kit.base.errors import MeasurementError
from deploy_kit.base.whole_files import parts_of
from deploy_kit.records import codec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a race is run; the fields of `records.Race`."""

    recompiles: int = 5
    rounds: int = 12
    runs: int = 4
    threads: int = 2
    streams: int = 1
    calibration_images: int = 32
    seed: int = 0


def run(title: str, subject: Subject, candidates: tuple[Candidate, ...], workshop: Workshop, plan: Plan) -> Race:
    """Make every candidate's file and measure all of them in turns."""
    made = [workshop.make(candidate, subject, plan.calibration_images) for candidate in candidates]
    return of_files(title, subject, made, workshop.folder, plan)


def of_files(title: str, subject: Subject, made: list[Made], folder: Path, plan: Plan) -> Race:
    """Measure files in turns; those that cannot be loaded and run get their reason."""
    image = _image(subject, folder)
    common = {"threads": plan.threads, "n_streams": plan.streams}
    entries = {one.candidate.name: _probed(one, image, common) for one in made}
    jobs = [_job(one, image) for one in made if not entries[one.candidate.name].why]
    samples: dict[str, list[Any]] = {job["name"]: [] for job in jobs}
    for index in range(plan.recompiles):
        sys.stderr.write(f"race: {title}: {len(jobs)} candidates, process {index + 1} of {plan.recompiles}\n")
        ended = child.call(
            "turns:repetition", jobs=jobs, rounds=plan.rounds, runs=plan.runs, seed=plan.seed + index, **common
        )
        if ended.why:
            raise MeasurementError(f"{title}: {ended.why}")
        for name, turns in ended.value.items():
            samples[name].append(turns)
    return Race(
        title=title,
        subject=subject.name,
        batch=subject.batch,
        entries=tuple(replace(entry, samples_ms=_frozen(samples.get(entry.name, []))) for entry in entries.values()),
        **vars(plan),
    )


def _probed(one: Made, image: Path, common: dict[str, Any]) -> Entry:
    """Find out in a child of its own whether a file loads and runs."""
    candidate = one.candidate
    entry = Entry(name=candidate.name, engine=candidate.engine, ours=candidate.ours, int8=candidate.int8, why=one.why)
    if one.path is None:
        return entry
    ended = child.call("turns:probe", job=_job(one, image), **common)
    size = sum(part.stat().st_size for part in parts_of(one.path))
    settings = tuple(sorted((ended.value or {}).items()))
    return replace(entry, size_bytes=size, settings=settings, why=ended.why)


def _job(one: Made, image: Path) -> dict[str, Any]:
    candidate = one.candidate
    taken = {} if one.taken is None else {"taken": codec.to_json(one.taken)}
    return taken | {
        "name": candidate.name,
        "engine": candidate.engine,
        "path": str(one.path),
        "options": dict(candidate.options),
        "image": str(one.image or image),
    }


def _image(subject: Subject, folder: Path) -> Path:
    """Write the input of all runs: the first real images, one batch."""
    used = images.open_set(CALIBRATION, subject.preprocess).first(subject.batch)
    path = folder / f"input-{subject.batch}x{subject.preprocess.channels}x{subject.preprocess.height}.npy"
    np.save(path, next(used.batches(subject.preprocess, subject.batch)))
    return path


def _frozen(recompiles: list[list[list[float]]]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(tuple(turn) for turn in rounds) for rounds in recompiles)
