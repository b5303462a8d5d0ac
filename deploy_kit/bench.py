"""Latency of engines measured in turns: every engine in a worker of its own, warmed up, then rounds in random order.

One process an engine keeps a crash, a thread pool and a memory leak to itself; turns in one run make the ratios hold
on a machine whose speed wanders.
"""

import contextlib
import datetime
import json
import random
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deploy_kit import codec, images, metrics
from deploy_kit.devices import Connection, Worker
from deploy_kit.errors import MeasurementError, StageError
from deploy_kit.measurements import Bench, Environment, Measurement, NotRun, SpeedUp
from deploy_kit.recipe import BenchTable
from deploy_kit.records import Artifact
from deploy_kit.store import Key, Store
from deploy_kit.watch import Event, Watch, silent

VERSION = "1"


@dataclass(kw_only=True)
class _Racer:
    """An engine at the start: its worker, and the samples so far."""

    artifact: Artifact
    worker: Worker
    settings: dict[str, str]
    batch: int
    warmup_runs: int = 0
    steady: bool = False
    samples_ms: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)


class _NotKept(Exception):  # noqa: N818  # no error: it carries a result past the store
    """A bench with a failure in it: given to the caller, not to the store."""

    def __init__(self, made: Bench) -> None:
        super().__init__()
        self.made = made


def run(
    engines: tuple[Artifact, ...],
    part: BenchTable,
    *,
    store: Store,
    link: Connection,
    watch: Watch = silent,
    fresh: bool = False,
) -> tuple[Bench, bool]:
    """Measure engines against each other.

    Args:
        engines: What to measure.
        part: How.
        store: Keeps the samples.
        link: Where.
        watch: Hears of progress.
        fresh: Measure again, even where the store has these engines measured on this machine.

    Returns:
        Samples of each engine, or why there are none; and whether the store had them.

    Raises:
        MeasurementError: The clock gave times that cannot be.
    """
    here = link.environment
    key = Key(
        stage="bench",
        name="bench",
        inputs=tuple(sorted(f"{engine.sha256}/{engine.label}" for engine in engines)),
        options=[part.model_dump(), [engine.options for engine in engines]],
        versions=(("stage", VERSION), ("cpu", here.cpu), ("cores", str(here.cores)), *here.versions),
    )

    def make(folder: Path, home: str) -> Bench:
        made = _measure(engines, part, store, link, watch)
        if made.failed:
            raise _NotKept(made)
        return made

    try:
        return store.produce(Bench, key, make, again=fresh)
    except _NotKept as left:
        return left.made, False


def speed_up(baseline: Measurement, candidate: Measurement) -> SpeedUp:
    """Compare two measurements of one run, round by round."""
    ratio, low, high = metrics.ratio_interval(
        [statistics.median(turn) for turn in baseline.by_round],
        [statistics.median(turn) for turn in candidate.by_round],
    )
    return SpeedUp(ratio=ratio, low=low, high=high, baseline=baseline.label)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _measure(engines: tuple[Artifact, ...], part: BenchTable, store: Store, link: Connection, watch: Watch) -> Bench:
    with contextlib.ExitStack() as stack:
        racers, not_run, failed = list[_Racer](), list[NotRun](), list[NotRun]()
        for engine in engines:
            worker = stack.enter_context(link.worker())
            why = str(worker.ask("hindrance", engine.path, engine=engine.engine)["why"])
            if why:
                not_run.append(NotRun(artifact=engine.sha256, label=engine.label, why=why))
                continue
            watch(Event(stage="bench", text=f"warming up {engine.label}"))
            try:
                racers.append(_start(engine, worker, part, store, link))
            except StageError as error:
                failed.append(NotRun(artifact=engine.sha256, label=engine.label, why=str(error)))
        order = random.Random(part.seed)  # noqa: S311  # an order of turns, no secret
        for turn in range(part.rounds):
            watch(Event(stage="bench", text=f"{len(racers)} engines in turns", done=turn, total=part.rounds))
            for racer in order.sample(racers, len(racers)):
                try:
                    _take_turn(racer, part)
                except StageError as error:
                    racers.remove(racer)
                    failed.append(NotRun(artifact=racer.artifact.sha256, label=racer.artifact.label, why=str(error)))
        described = environment_of(racers[0].worker) if racers else link.environment
    measurements = tuple(_measurement(racer, part, described) for racer in racers)
    return Bench(measurements=measurements, not_run=tuple(not_run), failed=tuple(failed))


def _start(engine: Artifact, worker: Worker, part: BenchTable, store: Store, link: Connection) -> _Racer:
    """Load an engine and warm it up on noise: latency does not depend on the pixels."""
    about, path = engine.path, link.send(store.path(engine), keep=True)
    opened = worker.ask("open", about, engine=engine.engine, path=path, options=json.loads(engine.options))
    batch = int(opened["batch"]) or 1
    noise = images.open_set(images.SYNTHETIC, engine.preprocess)
    image = np.concatenate(list(noise.batches(engine.preprocess, noise.n)))
    file = link.folder / f"bench-{engine.sha256[:12]}-{engine.engine}.npy"
    np.save(file, np.resize(image, (batch, *image.shape[1:])))
    warm = worker.ask("warm_up", about, inputs=link.send(file), span=part.span, limit_s=part.warmup_s)
    return _Racer(
        artifact=engine,
        worker=worker,
        settings=dict(opened["settings"]),
        batch=batch,
        warmup_runs=int(warm["runs"]),
        steady=bool(warm["steady"]),
    )


def _take_turn(racer: _Racer, part: BenchTable) -> None:
    answer = racer.worker.ask("time", racer.artifact.path, span=part.span, n=part.runs)
    samples = [float(sample) for sample in answer["samples_ms"]]
    if not samples or min(samples) <= 0:
        raise MeasurementError(f"{racer.artifact.label}: a run took {min(samples, default=0)} ms")
    racer.rounds.append(len(racer.samples_ms))
    racer.samples_ms.extend(samples)


def environment_of(worker: Worker) -> Environment:
    """Ask the machine that measured what it is."""
    return codec.from_json(Environment, worker.ask("environment", "environment")["environment"])


def _measurement(racer: _Racer, part: BenchTable, described: Environment) -> Measurement:
    return Measurement(
        artifact=racer.artifact.sha256,
        label=racer.artifact.label,
        batch=racer.batch,
        span=part.span,
        samples_ms=tuple(racer.samples_ms),
        rounds=tuple(racer.rounds),
        warmup_runs=racer.warmup_runs,
        steady=racer.steady,
        settings=tuple(sorted(racer.settings.items())),
        environment=described,
        when=_now(),
    )
