"""Engines in turns: each in a worker of its own, warmed up, then rounds in an order drawn anew each time.

One process an engine keeps a crash, a thread pool and a memory leak to itself; turns in one run make the ratios hold
on a machine whose speed wanders. A race that lost its device can be taken up at the round it was in.
"""

import contextlib
import datetime
import json
import math
import random
import statistics
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from deploy_kit import images
from deploy_kit.base.errors import (
    DeployKitError,
    DeviceError,
    LinkLostError,
    MeasurementError,
    MissingPackageError,
    RecipeError,
    StageError,
)
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.devices.links import Connection, Worker
from deploy_kit.measure import latency, layer_profile, scenarios, stopwatch
from deploy_kit.measure.stopwatch import Turn
from deploy_kit.measure.telemetry import Telemetry
from deploy_kit.recipe import BenchTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Bench, Environment, LoadCost, LoadGenResult, Measurement, NotRun
from deploy_kit.store import Store


@dataclass(frozen=True, kw_only=True)
class RaceEntry:
    """An engine and the batch to run it at."""

    engine: Artifact
    batch: int


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """How long a race is: turns of every engine; of one turn, runs and seconds at least."""

    rounds: int
    runs: int
    seconds: float


@dataclass(kw_only=True)
class _Racer:
    """An engine at the start: its worker, and its turns so far."""

    entry: RaceEntry
    worker: Worker
    settings: dict[str, str]
    warmup_runs: int
    steady: bool
    cost: LoadCost
    path: str
    inputs: str
    turns: list[Turn] = field(default_factory=list)
    resumed_at: tuple[int, ...] = ()
    loadgen: LoadGenResult | None = None
    invalid_before: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name it among the racers: an engine may run at several batches."""
        return f"{self.entry.engine.sha256} {self.entry.engine.label} {self.entry.batch}"


def plan_race(part: BenchTable) -> RacePlan:
    """Say how many rounds and runs a recipe's table comes to."""
    scenario = scenarios.get_scenario(part.scenario)
    rounds = part.rounds or scenario.rounds
    by_time = part.duration_s is not None and not scenario.seconds  # LoadGen asks for queries and for seconds
    runs = part.runs or (1 if by_time else scenario.runs)
    least = math.ceil((part.min_iters or 1) / rounds)
    seconds = scenario.seconds if part.duration_s is None else part.duration_s / rounds
    return RacePlan(rounds=rounds, runs=max(runs, least), seconds=seconds)


def verify_bench_table(part: BenchTable) -> None:
    """Refuse a table whose scenario is not known, or lacks what it is judged by.

    Raises:
        UnknownNameError: No scenario is called that.
        RecipeError: A key is missing.
    """
    scenario = scenarios.get_scenario(part.scenario)
    lack = next((key for key in scenario.needs if getattr(part, key) is None), None)
    if lack:
        option = {"target_qps": "--target-qps 100", "latency_budget_ms": "--latency-budget 8ms"}[lack]
        raise RecipeError(f"recipe.bench: scenario '{part.scenario}' needs '{lack}'", hint=f"e.g. {option}")


def run_race(
    entries: tuple[RaceEntry, ...],
    part: BenchTable,
    *,
    store: Store,
    connection: Connection,
    on_progress: ProgressCallback,
    begun: Bench | None = None,
) -> Bench:
    """Measure engines in turns.

    Args:
        entries: What to measure.
        part: How.
        store: Has the engines.
        connection: Where.
        on_progress: Called with progress events.
        begun: A race of the same entries that was stopped; its whole rounds are used.

    Returns:
        Samples of each engine, or why there are none; all rounds that were finished where the device was lost.

    Raises:
        MeasurementError: The clock gave times that cannot be.
        DeviceError: The device was lost before a round was finished.
    """
    with contextlib.ExitStack() as stack:
        on_progress(ProgressEvent(stage="bench", text="reading the gauges" + " of the idle machine" * part.energy))
        gauges = stack.enter_context(connection.worker())
        telemetry = Telemetry(gauges, machine=connection.environment, store=store, with_energy=part.energy)
        race = _Race(part, store, connection, on_progress, telemetry)
        race.start(entries, stack)
        described = environment_of(race.racers[0].worker) if race.racers else connection.environment
        if begun is not None:
            race.take_up(begun)
        race.go()
        race.spend()
        measured = [(racer, race.measurement(racer, described)) for racer in race.racers]
    return Bench(  # workers are closed: what a profile runs beside would be in it
        measurements=tuple(replace(one, profile=race.profile(racer)) for racer, one in measured),
        not_run=tuple(race.not_run),
        failed=tuple(race.failed),
    )


def environment_of(worker: Worker) -> Environment:
    """Ask the machine that measured what it is."""
    return codec.from_json(Environment, worker.ask("environment", "environment")["environment"])


class _Race:
    """The racers, those that did not come to the start or fell out, and where the race is."""

    def __init__(
        self,
        part: BenchTable,
        store: Store,
        connection: Connection,
        on_progress: ProgressCallback,
        telemetry: Telemetry,
    ) -> None:
        self.part, self.plan, self.telemetry = part, plan_race(part), telemetry
        self.racers, self.not_run, self.failed = list[_Racer](), list[NotRun](), list[NotRun]()
        self._store, self._connection, self._on_progress = store, connection, on_progress
        self._first, self._ended_ns = 0, 0
        self._origin_ns: int | None = None
        self._stopped = ""

    def start(self, entries: tuple[RaceEntry, ...], stack: contextlib.ExitStack) -> None:
        """Open every engine that can run here and warm it up.

        Raises:
            DeviceError: The device was lost, or lacks what each of them needs.
            MissingPackageError: This machine lacks it.
        """
        lacking = list[DeployKitError]()
        for entry in entries:
            engine, worker = entry.engine, stack.enter_context(self._connection.worker())
            self.telemetry.adopt(worker)
            why = self._why_unavailable(worker, engine)
            if why:
                self.not_run.append(NotRun(artifact=engine.sha256, label=engine.label, why=why))
                continue
            self._on_progress(ProgressEvent(stage="bench", text=f"warming up {engine.label}"))
            try:
                self.racers.append(self._warmed(entry, worker))
            except StageError as error:
                self._drop(entry, error)
            except LinkLostError:
                raise  # no other engine can do better
            except (DeviceError, MissingPackageError) as error:
                lacking.append(error)
                self.not_run.append(NotRun(artifact=engine.sha256, label=engine.label, why=error.reason))
        if lacking and not self.racers:
            raise lacking[0]

    def take_up(self, begun: Bench) -> None:
        """Give every racer the rounds that all have finished."""
        known = {(m.artifact, m.label, m.batch): m for m in begun.measurements}
        names = [(r.entry.engine.sha256, r.entry.engine.label, r.entry.batch) for r in self.racers]
        if not names or not all(name in known for name in names):
            return
        mine = [known[name] for name in names]
        self._first = min(len(measured.rounds) for measured in mine)
        for racer, measured in zip(self.racers, mine, strict=True):
            racer.turns = split_into_turns(measured)[: self._first]
            racer.resumed_at = (*measured.resumed_at, self._first)
            racer.invalid_before = measured.invalid
            self._ended_ns = max(self._ended_ns, *(_end_ns(turn) for turn in racer.turns))

    def go(self) -> None:
        """Take the rounds that are left; stop where the device is lost, with the rounds that all have finished.

        Raises:
            DeviceError: It was lost in the first round.
        """
        order = random.Random(self.part.seed)  # noqa: S311  # an order of turns, no secret
        for number in range(self.plan.rounds):
            drawn = order.sample(self.racers, len(self.racers))
            if number < self._first:
                continue
            text = f"{len(drawn)} engine{'s' * (len(drawn) > 1)} in turns"
            self._on_progress(ProgressEvent(stage="bench", text=text, done=number, total=self.plan.rounds))
            try:
                self._round(drawn)
            except DeviceError as error:
                if number == 0:
                    raise
                self._stopped = f"the device was lost in round {number + 1} of {self.plan.rounds}: {error}"
                for racer in self.racers:
                    del racer.turns[number:]
                return

    def spend(self) -> None:
        """Run each engine once more for what it costs in energy, where that is asked for and can be read."""
        if not self.telemetry.measures_energy or self._stopped:
            return
        for racer in tuple(self.racers):
            self._on_progress(ProgressEvent(stage="bench", text=f"energy of {racer.entry.engine.label}"))
            try:
                run = partial(self._closed_loop, racer)
                self.telemetry.run_for_energy(racer.key, batch=racer.entry.batch, run=run)
            except StageError as error:
                self.racers.remove(racer)
                self._drop(racer.entry, error)

    def measurement(self, racer: _Racer, described: Environment) -> Measurement:
        """Put one engine's turns together, and what the gauges say of them."""
        samples = tuple(sample for turn in racer.turns for sample in turn.samples_ms)
        lengths = [len(turn.samples_ms) for turn in racer.turns]
        said = racer.loadgen
        invalid = (f"LoadGen says INVALID: {said.sentence}",) if said and not (said.valid or said.over_budget) else ()
        measured = Measurement(
            artifact=racer.entry.engine.sha256,
            label=racer.entry.engine.label,
            batch=racer.entry.batch,
            span=self.part.span,
            samples_ms=samples,
            rounds=tuple(sum(lengths[:index]) for index in range(len(lengths))),
            warmup_runs=racer.warmup_runs,
            steady=racer.steady,
            settings=tuple(sorted(racer.settings.items())),
            environment=described,
            when=_now(),
            scenario=self.part.scenario,
            streams=self.part.streams,
            starts_ms=tuple(round(start / 1e6, 4) for turn in racer.turns for start in turn.starts_ns),
            h2d_ms=tuple(part for turn in racer.turns for part in turn.h2d_ms),
            d2h_ms=tuple(part for turn in racer.turns for part in turn.d2h_ms),
            device=stopwatch.device_times_of(racer.turns),
            round_s=tuple(turn.seconds for turn in racer.turns),
            drift=latency.describe_drift([statistics.median(turn.samples_ms) for turn in racer.turns]),
            stopped=self._stopped,
            resumed_at=racer.resumed_at,
            invalid=(*racer.invalid_before, *invalid),
            loadgen=said,
            cost=racer.cost,
        )
        return self.telemetry.told(measured, racer.entry.engine, racer.key)

    def profile(self, racer: _Racer) -> LayerProfile | None:
        """Profile an engine once all were timed; None where that was not asked for, or the device was lost."""
        engine = racer.entry.engine
        if not self.part.profile or self._stopped:
            return None
        self._on_progress(ProgressEvent(stage="bench", text=f"profiling {engine.label}"))
        try:
            return layer_profile.profile_layers(
                engine, path=racer.path, inputs=racer.inputs, store=self._store, connection=self._connection
            )
        except (StageError, DeviceError) as error:  # the latencies stand
            return LayerProfile(source="", runs=0, run_ms=0.0, layers=(), remark=str(error))

    def _round(self, drawn: list[_Racer]) -> None:
        for racer in drawn:
            try:
                with self.telemetry.turn(racer.key):
                    self._take_turn(racer)
            except StageError as error:
                self.racers.remove(racer)
                self._drop(racer.entry, error)

    def _take_turn(self, racer: _Racer) -> None:
        part, engine = self.part, racer.entry.engine
        answer = racer.worker.ask(
            "time",
            engine.path,
            scenario=part.scenario,
            span=part.span,
            n=self.plan.runs,
            seconds=self.plan.seconds,
            batch=racer.entry.batch,
            target_qps=part.target_qps or 0.0,
            latency_budget_ms=part.latency_budget_ms or 0.0,
        )
        turn = codec.from_json(Turn, answer["turn"], "turn")
        if not turn.samples_ms or min(turn.samples_ms) <= 0:
            raise MeasurementError(f"{engine.label}: a run took {min(turn.samples_ms, default=0)} ms")
        racer.turns.append(self._rebased(turn))
        if answer["loadgen"] is not None:
            racer.loadgen = codec.from_json(LoadGenResult, answer["loadgen"], "loadgen")

    def _closed_loop(self, racer: _Racer, seconds: float) -> int:
        """Run an engine for so long without a pause; give the number of runs."""
        span, path = self.part.span, racer.entry.engine.path
        answer = racer.worker.ask("time", path, span=span, n=1, seconds=seconds, batch=racer.entry.batch)
        return len(codec.from_json(Turn, answer["turn"], "turn").samples_ms)

    def _rebased(self, turn: Turn) -> Turn:
        """Count starts from the first sample of the race; of a race taken up, from where it was stopped."""
        if self._origin_ns is None:
            self._origin_ns = min(turn.starts_ns) - self._ended_ns
        return replace(turn, starts_ns=tuple(start - self._origin_ns for start in turn.starts_ns))

    def _why_unavailable(self, worker: Worker, engine: Artifact) -> str:
        why = str(worker.ask("why_unavailable", engine.path, engine=engine.engine)["why"])
        if why or self.part.scenario == "closed-loop":
            return why
        return str(worker.ask("scenario_why_unavailable", engine.path, scenario=self.part.scenario)["why"])

    def _warmed(self, entry: RaceEntry, worker: Worker) -> _Racer:
        """Load an engine and warm it up on noise: latency does not depend on the pixels."""
        engine, part = entry.engine, self.part
        path, options = self._connection.send(self._store.path(engine), keep=True), json.loads(engine.options)
        opened = worker.ask("open", engine.path, engine=engine.engine, path=path, options=options, streams=part.streams)
        entry = replace(entry, batch=int(opened["batch"]) or entry.batch)
        inputs = self._connection.send(self._noise(entry))
        warm = worker.ask("warm_up", engine.path, inputs=inputs, span=part.span, limit_s=part.warmup_s)
        return _Racer(
            entry=entry,
            worker=worker,
            settings=dict(opened["settings"]),
            warmup_runs=int(warm["runs"]),
            steady=bool(warm["steady"]),
            cost=codec.from_json(LoadCost, warm["cost"], "cost"),
            path=path,
            inputs=inputs,
        )

    def _noise(self, entry: RaceEntry) -> Path:
        engine = entry.engine
        noise = images.open_set(images.SYNTHETIC, engine.preprocess)
        image = np.concatenate(list(noise.batches(engine.preprocess, noise.n)))
        file = self._connection.folder / f"bench-{engine.sha256[:12]}-{engine.engine}-{entry.batch}.npy"
        np.save(file, np.resize(image, (entry.batch, *image.shape[1:])))
        return file

    def _drop(self, entry: RaceEntry, error: StageError) -> None:
        self.failed.append(NotRun(artifact=entry.engine.sha256, label=entry.engine.label, why=str(error)))


def split_into_turns(measured: Measurement) -> list[Turn]:
    """Cut a measurement back into its turns."""
    found = []
    ends = (*measured.rounds[1:], len(measured.samples_ms))
    for begin, end, seconds in zip(measured.rounds, ends, measured.round_s, strict=True):
        starts_ns = tuple(round(1e6 * start) for start in measured.starts_ms[begin:end])
        samples, h2d, d2h = (part[begin:end] for part in (measured.samples_ms, measured.h2d_ms, measured.d2h_ms))
        device = measured.device.cut(begin, end) if measured.device else None
        turn = Turn(samples_ms=samples, starts_ns=starts_ns, h2d_ms=h2d, d2h_ms=d2h, seconds=seconds, device=device)
        found.append(turn)
    return found


def _end_ns(turn: Turn) -> int:
    return turn.starts_ns[-1] + round(1e6 * turn.samples_ms[-1])


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
