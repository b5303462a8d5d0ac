"""What one process of a race does: load every candidate, then time them in turns. Light to import."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import streams
from benchmarks.runners import open_session
from deploy_kit.engines import Session
from deploy_kit.measure import stopwatch
from deploy_kit.programs.worker import Frames
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

_WARM_RUNS = 3


def repetition(
    jobs: list[dict[str, Any]], rounds: int, runs: int, seed: int, threads: int, n_streams: int
) -> dict[str, list[list[float]]]:
    """Load all candidates, and give each one's samples by round: what one child process does."""
    order = random.Random(seed)  # noqa: S311  # an order of turns, no secret
    racers = {job["name"]: _opened(job, threads, n_streams)[0] for job in order.sample(jobs, len(jobs))}
    for racer in racers.values():
        stopwatch.sample_ms(racer, _WARM_RUNS)
    share = n_streams * streams.RUNS if n_streams > 1 else 1
    samples: dict[str, list[list[float]]] = {name: [] for name in racers}
    for _ in range(rounds):
        for name in order.sample(list(racers), len(racers)):
            racers[name]()  # the first of a turn finds the caches full of another candidate
            turn = stopwatch.sample_ms(racers[name], runs)
            samples[name].append([round(sample / share, 5) for sample in turn])
    return samples


def probe(job: dict[str, Any], threads: int, n_streams: int) -> dict[str, str]:
    """Load a file and run it once; give the settings it ran with."""
    run, settings = _opened(job, threads, n_streams)
    run()
    return settings


def _opened(job: dict[str, Any], threads: int, n_streams: int) -> tuple[Callable[[], None], dict[str, str]]:
    pixels = np.load(job["image"])
    if n_streams > 1:
        return streams.open_streams(
            job["engine"], job["path"], job["options"], image=pixels, threads=threads, n_streams=n_streams
        )
    session = open_session(job["engine"], job["path"], job["options"], threads)
    if "taken" in job:
        frames = Frames(pixels=pixels, preprocess=codec.from_json(Preprocess, job["taken"]))
        return partial(_from_frame_to_class, frames, session), dict(session.settings)
    session.bind(pixels)
    return session.run, dict(session.settings)


def _from_frame_to_class(frames: Frames, session: Session) -> None:
    frames.bind_to(session)
    session.run()
    session.fetch().argmax(1)
