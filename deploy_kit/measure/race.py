"""Engines measured in turns: each in a worker of its own, warmed up, then timed in rounds of random order.

A process for each engine confines crashes, thread pools and memory leaks. Turns in one run make ratios hold on a
machine whose speed wanders, because what all engines meet in a round cancels. A race that lost its device can be
resumed at the round it was in.
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
from typing import Any

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
from deploy_kit.context import Context
from deploy_kit.devices.links import Worker
from deploy_kit.images.arrays import write_npy
from deploy_kit.measure import latency, layer_profile, scenarios, stopwatch
from deploy_kit.measure.stopwatch import Turn
from deploy_kit.measure.telemetry import Telemetry
from deploy_kit.recipe import BenchTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess
from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Bench, Environment, LoadCost, LoadGenResult, Measurement, NotRun


@dataclass(frozen=True, kw_only=True)
class RaceEntry:
    """An engine that takes part in a race.

    Attributes:
        engine: The engine.
        batch: Images per run.
    """

    engine: Artifact
    batch: int


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """Length of a race.

    Attributes:
        rounds: Number of rounds; each engine has one turn in a round.
        runs: Least number of runs in a turn.
        seconds: Least duration of a turn in seconds.
    """

    rounds: int
    runs: int
    seconds: float


@dataclass(kw_only=True)
class _Racer:
    """An engine that is loaded and warmed up in its worker, with its turns so far.

    Attributes:
        entry: The engine and its batch.
        worker: Worker process that holds the engine.
        settings: Settings that the engine reports.
        warmup_runs: Number of runs before the first sample.
        steady: Whether the warm-up became steady.
        cost: Cost of loading the engine.
        path: Path of the engine's file, as the worker sees it.
        inputs: Path of the npy file with the input, as the worker sees it.
        turns: Turns so far, one for each round.
        resumed_at: Number of finished rounds at each time the race was resumed.
        loadgen: Result of LoadGen in the last turn.
        invalid_before: Reasons for invalidity from before the race was resumed.
    """

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
        """Unique name in the race; an engine may take part at several batch sizes."""
        return f"{self.entry.engine.sha256} {self.entry.engine.label} {self.entry.batch}"


def plan_race(table: BenchTable) -> RacePlan:
    """Compute the length of a race from a recipe's bench table and the defaults of its scenario."""
    scenario = scenarios.get_scenario(table.scenario)
    rounds = table.rounds or scenario.rounds
    # A duration alone replaces the least number of runs; LoadGen's rules take both, queries and seconds.
    by_time = table.duration_s is not None and not scenario.seconds
    runs = table.runs or (1 if by_time else scenario.runs)
    least = math.ceil((table.min_iters or 1) / rounds)
    seconds = scenario.seconds if table.duration_s is None else table.duration_s / rounds
    return RacePlan(rounds=rounds, runs=max(runs, least), seconds=seconds)


def verify_bench_table(table: BenchTable) -> None:
    """Refuse a bench table whose scenario is unknown or lacks a key that it needs.

    Raises:
        UnknownNameError: No scenario has this name.
        RecipeError: A key is missing.
    """
    scenario = scenarios.get_scenario(table.scenario)
    lack = next((key for key in scenario.needs if getattr(table, key) is None), None)
    if lack:
        option = {"target_qps": "--target-qps 100", "latency_budget_ms": "--latency-budget 8ms"}[lack]
        raise RecipeError(f"recipe.bench: scenario '{table.scenario}' needs '{lack}'", hint=f"e.g. {option}")


def run_race(
    entries: tuple[RaceEntry, ...],
    table: BenchTable,
    context: Context,
    *,
    begun: Bench | None = None,
) -> Bench:
    """Measure engines in turns.

    Args:
        entries: Engines to measure, each at one batch size.
        table: The recipe's bench table.
        context: Store that holds the engines and the graphs they were built from, and the machine that measures.
        begun: Unfinished race of the same entries; the rounds that all its engines finished are reused.

    Returns:
        Samples of each engine, or the reason why there are none. Where the device was lost, the rounds that all
        engines had finished.

    Raises:
        MeasurementError: The clock gave an impossible time.
        DeviceError: The device was lost before the first round was finished.
    """
    with contextlib.ExitStack() as stack:
        context.report("bench", "reading the gauges" + " of the idle machine" * table.energy)
        gauges, machine = stack.enter_context(context.connection.worker()), context.connection.environment
        telemetry = Telemetry(gauges, machine=machine, store=context.store, with_energy=table.energy)
        race = _Race(table, context, telemetry)
        race.start(entries, stack)
        # Asked of a worker and not of the connection: the environment is that of the moment, with its clock and load.
        environment = environment_of(race.racers[0].worker) if race.racers else machine
        if begun is not None:
            race.resume(begun)
        race.run_rounds()
        race.measure_energy()
        measured = [(racer, race.measurement(racer, environment)) for racer in race.racers]
    return Bench(  # the workers are closed by now: a profile would contain the load of engines beside it
        measurements=tuple(replace(one, profile=race.profile(racer)) for racer, one in measured),
        not_run=tuple(race.not_run),
        failed=tuple(race.failed),
    )


def environment_of(worker: Worker) -> Environment:
    """Return the description of a worker's machine at this moment."""
    return codec.from_json(Environment, worker.ask("environment", "environment")["environment"])


class _Race:
    """State of a race: the engines in it, those that cannot run or failed, and the rounds so far."""

    def __init__(self, table: BenchTable, context: Context, telemetry: Telemetry) -> None:
        self.table, self.plan, self.telemetry = table, plan_race(table), telemetry
        self.racers, self.not_run, self.failed = list[_Racer](), list[NotRun](), list[NotRun]()
        self._context, self._store, self._connection = context, context.store, context.connection
        self._first, self._ended_ns = 0, 0
        self._origin_ns: int | None = None
        self._stopped = ""

    def start(self, entries: tuple[RaceEntry, ...], stack: contextlib.ExitStack) -> None:
        """Load and warm up every engine that can run on the machine.

        Raises:
            DeviceError: The device was lost, or lacks a package that each of the engines needs.
            MissingPackageError: This machine lacks a package that each of the engines needs.
        """
        lacking = list[DeployKitError]()
        for entry in entries:
            engine, worker = entry.engine, stack.enter_context(self._connection.worker())
            self.telemetry.count_as_own(worker)
            why = self._why_unavailable(worker, engine)
            if why:
                self.not_run.append(NotRun(artifact=engine.sha256, label=engine.label, why=why))
                continue
            self._context.report("bench", f"warming up {engine.label}")
            try:
                self.racers.append(self._load_and_warm_up(entry, worker))
            except StageError as error:
                self._record_failure(entry, error)
            except LinkLostError:
                raise  # without the link no other engine can run either
            except (DeviceError, MissingPackageError) as error:
                lacking.append(error)
                self.not_run.append(NotRun(artifact=engine.sha256, label=engine.label, why=error.reason))
        if lacking and not self.racers:
            raise lacking[0]

    def resume(self, begun: Bench) -> None:
        """Reuse the rounds of an unfinished race that all its engines finished, if it has every engine of this one."""
        known = {(m.artifact, m.label, m.batch): m for m in begun.measurements}
        names = [(r.entry.engine.sha256, r.entry.engine.label, r.entry.batch) for r in self.racers]
        if not names or not all(name in known for name in names):
            return
        earlier = [known[name] for name in names]
        self._first = min(len(measured.rounds) for measured in earlier)
        for racer, measured in zip(self.racers, earlier, strict=True):
            racer.turns = split_into_turns(measured)[: self._first]
            racer.resumed_at = (*measured.resumed_at, self._first)
            racer.invalid_before = measured.invalid
            self._ended_ns = max(self._ended_ns, *(_end_ns(turn) for turn in racer.turns))

    def run_rounds(self) -> None:
        """Run the rounds that are left; where the device is lost, stop with the rounds that all engines have finished.

        Raises:
            DeviceError: The device was lost in the first round.
        """
        order = random.Random(self.table.seed)  # noqa: S311  # an order of turns, no secret
        for number in range(self.plan.rounds):
            # A fixed order would give each engine the same predecessor in every round. Finished rounds are drawn too,
            # so that a resumed race takes its turns in the order of one that was not stopped.
            drawn = order.sample(self.racers, len(self.racers))
            if number < self._first:
                continue
            text = f"{len(drawn)} engine{'s' * (len(drawn) > 1)} in turns"
            self._context.report("bench", text, done=number, total=self.plan.rounds)
            try:
                self._run_round(drawn)
            except DeviceError as error:
                if number == 0:
                    raise
                self._stopped = f"the device was lost in round {number + 1} of {self.plan.rounds}: {error}"
                # Ratios are taken round by round: a round that not every engine finished has no ratio.
                for racer in self.racers:
                    del racer.turns[number:]
                return

    def measure_energy(self) -> None:
        """Run each engine once more to measure its energy, where that was requested and a gauge can read it.

        Separate from the rounds, because a turn may be shorter than the time that a power sensor needs.
        """
        if not self.telemetry.measures_energy or self._stopped:
            return
        for racer in tuple(self.racers):
            self._context.report("bench", f"energy of {racer.entry.engine.label}")
            try:
                run = partial(self._run_closed_loop, racer)
                self.telemetry.run_for_energy(racer.key, batch=racer.entry.batch, run=run)
            except StageError as error:
                self.racers.remove(racer)
                self._record_failure(racer.entry, error)

    def measurement(self, racer: _Racer, environment: Environment) -> Measurement:
        """Put one engine's turns together and add conditions, energy and roofline."""
        samples = tuple(sample for turn in racer.turns for sample in turn.samples_ms)
        lengths = [len(turn.samples_ms) for turn in racer.turns]
        result = racer.loadgen
        # A budget that is not kept is a finding about the engine; any other INVALID is a fault of the test.
        faulty = result is not None and not (result.valid or result.over_budget)
        invalid = (f"LoadGen says INVALID: {result.sentence}",) if result and faulty else ()
        measured = Measurement(
            artifact=racer.entry.engine.sha256,
            label=racer.entry.engine.label,
            batch=racer.entry.batch,
            span=self.table.span,
            samples_ms=samples,
            rounds=tuple(sum(lengths[:index]) for index in range(len(lengths))),
            warmup_runs=racer.warmup_runs,
            steady=racer.steady,
            settings=tuple(sorted(racer.settings.items())),
            environment=environment,
            when=_now(),
            scenario=self.table.scenario,
            streams=self.table.streams,
            starts_ms=tuple(round(start / 1e6, 4) for turn in racer.turns for start in turn.starts_ns),
            h2d_ms=tuple(ms for turn in racer.turns for ms in turn.h2d_ms),
            d2h_ms=tuple(ms for turn in racer.turns for ms in turn.d2h_ms),
            device=stopwatch.device_times_of(racer.turns),
            round_s=tuple(turn.seconds for turn in racer.turns),
            drift=latency.describe_drift([statistics.median(turn.samples_ms) for turn in racer.turns]),
            stopped=self._stopped,
            resumed_at=racer.resumed_at,
            invalid=(*racer.invalid_before, *invalid),
            loadgen=result,
            cost=racer.cost,
        )
        return self.telemetry.annotate(measured, racer.entry.engine, racer.key)

    def profile(self, racer: _Racer) -> LayerProfile | None:
        """Profile an engine once all are timed; None where no profile was requested, or the device was lost."""
        engine = racer.entry.engine
        if not self.table.profile or self._stopped:
            return None
        self._context.report("bench", f"profiling {engine.label}")
        try:
            return layer_profile.profile_layers(
                engine, path=racer.path, inputs=racer.inputs, store=self._store, connection=self._connection
            )
        except (StageError, DeviceError) as error:  # the latencies are measured and stay valid
            return LayerProfile(source="", runs=0, run_ms=0.0, layers=(), remark=str(error))

    def _run_round(self, drawn: list[_Racer]) -> None:
        for racer in drawn:
            try:
                with self.telemetry.turn(racer.key):
                    self._take_turn(racer)
            except StageError as error:
                self.racers.remove(racer)
                self._record_failure(racer.entry, error)

    def _take_turn(self, racer: _Racer) -> None:
        table, engine = self.table, racer.entry.engine
        answer = racer.worker.ask(
            "time",
            engine.path,
            scenario=table.scenario,
            span=table.span,
            n=self.plan.runs,
            seconds=self.plan.seconds,
            batch=racer.entry.batch,
            target_qps=table.target_qps or 0.0,
            latency_budget_ms=table.latency_budget_ms or 0.0,
        )
        turn = codec.from_json(Turn, answer["turn"], "turn")
        if not turn.samples_ms or min(turn.samples_ms) <= 0:
            raise MeasurementError(f"{engine.label}: a run took {min(turn.samples_ms, default=0)} ms")
        racer.turns.append(self._rebase_starts(turn))
        if answer["loadgen"] is not None:
            racer.loadgen = codec.from_json(LoadGenResult, answer["loadgen"], "loadgen")

    def _run_closed_loop(self, racer: _Racer, seconds: float) -> int:
        """Run an engine without a pause for at least `seconds` and return the number of runs."""
        span, path = self.table.span, racer.entry.engine.path
        answer = racer.worker.ask("time", path, span=span, n=1, seconds=seconds, batch=racer.entry.batch)
        return len(codec.from_json(Turn, answer["turn"], "turn").samples_ms)

    def _rebase_starts(self, turn: Turn) -> Turn:
        """Count starts from the first sample of the race; in a resumed race, from the end of its reused rounds.

        All workers read one monotonic clock of their machine, so starts of different engines can be compared.
        """
        if self._origin_ns is None:
            self._origin_ns = min(turn.starts_ns) - self._ended_ns
        return replace(turn, starts_ns=tuple(start - self._origin_ns for start in turn.starts_ns))

    def _why_unavailable(self, worker: Worker, engine: Artifact) -> str:
        why = str(worker.ask("why_unavailable", engine.path, engine=engine.engine)["why"])
        if why or self.table.scenario == "closed-loop":
            return why
        return str(worker.ask("scenario_why_unavailable", engine.path, scenario=self.table.scenario)["why"])

    def _load_and_warm_up(self, entry: RaceEntry, worker: Worker) -> _Racer:
        """Load an engine and warm it up on noise: latency does not depend on the pixels."""
        engine, table = entry.engine, self.table
        path, options = self._connection.send(self._store.path(engine), keep=True), json.loads(engine.options)
        opened = worker.ask(
            "open", engine.path, engine=engine.engine, path=path, options=options, streams=table.streams
        )
        entry = replace(entry, batch=int(opened["batch"]) or entry.batch)
        inputs = self._connection.send(self._write_noise(entry, engine.preprocess))
        given: dict[str, Any] = {"inputs": inputs, "span": table.span, "limit_s": table.warmup_s}
        if table.span == "frame":
            assert isinstance(engine.preprocess, Preprocess)  # `stages.bench.entered` refuses others
            pixels = self._write_noise(entry, replace(engine.preprocess, input_pixels=True))
            given |= {"frames": self._connection.send(pixels), "preprocess": codec.to_json(engine.preprocess)}
        warm = worker.ask("warm_up", engine.path, **given)
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

    def _write_noise(self, entry: RaceEntry, preprocess: Preprocess | BareInput) -> Path:
        engine = entry.engine
        noise = images.open_set(images.SYNTHETIC, preprocess)
        image = np.concatenate(list(noise.batches(preprocess, noise.n)))
        name = f"bench-{engine.sha256[:12]}-{engine.engine}-{entry.batch}-{image.dtype}.npy"
        file = self._connection.folder / name
        write_npy(file, np.resize(image, (entry.batch, *image.shape[1:])))
        return file

    def _record_failure(self, entry: RaceEntry, error: StageError) -> None:
        self.failed.append(NotRun(artifact=entry.engine.sha256, label=entry.engine.label, why=str(error)))


def split_into_turns(measured: Measurement) -> list[Turn]:
    """Split a measurement into the turns that it was put together from."""
    turns = []
    ends = (*measured.rounds[1:], len(measured.samples_ms))
    for begin, end, seconds in zip(measured.rounds, ends, measured.round_s, strict=True):
        starts_ns = tuple(round(1e6 * start) for start in measured.starts_ms[begin:end])
        samples, h2d, d2h = (part[begin:end] for part in (measured.samples_ms, measured.h2d_ms, measured.d2h_ms))
        device = measured.device.cut(begin, end) if measured.device else None
        turn = Turn(samples_ms=samples, starts_ns=starts_ns, h2d_ms=h2d, d2h_ms=d2h, seconds=seconds, device=device)
        turns.append(turn)
    return turns


def _end_ns(turn: Turn) -> int:
    return turn.starts_ns[-1] + round(1e6 * turn.samples_ms[-1])


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
