"""Latency of engines, measured in turns (`race`), kept in the store, compared, and held against limits."""

from pathlib import Path

from deploy_kit.base.errors import RequestError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.measure import race, scenarios
from deploy_kit.measure.race import RaceEntry
from deploy_kit.recipe import BenchTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BareInput
from deploy_kit.records.measurements import Bench, Measurement, SpeedUp, samples_for
from deploy_kit.store import Key

VERSION = "5"
# What shows and judges samples decides none of them.
_READERS = {"baseline", "percentiles", "latency_budget_ms", "fail_on_regression"}


class _NotKept(Exception):  # noqa: N818  # no error: it carries a result past the store
    """A bench with a failure in it: given to the caller, not to the store."""

    def __init__(self, made: Bench) -> None:
        super().__init__()
        self.made = made


def run(
    engines: tuple[Artifact, ...],
    table: BenchTable,
    context: Context,
    *,
    fresh: bool = False,
) -> tuple[Bench, bool]:
    """Measure engines against each other.

    Args:
        engines: What to measure.
        table: How.
        context: Where. The store keeps the samples; of a bench that lost its device, the rounds that were finished.
        fresh: Measure again, even where the store has these engines measured on this machine; where what it has is
            not valid, they are measured again anyway.

    Returns:
        Samples of each engine, or why there are none; and whether the store had them.

    Raises:
        RequestError: An engine cannot take a batch or a span that was asked for, or the scenario lacks a setting.
        MeasurementError: The clock gave times that cannot be.
        DeviceError: The device was lost before a round was finished.
    """
    store, connection = context.store, context.connection
    entries = entered(engines, table)
    key, rest = _key(entries, table, "bench", connection), _key(entries, table, "bench-begun", connection)
    kept = store.kept(Bench, key)
    again = fresh or (kept is not None and bool(kept.invalid))

    def make(folder: Path, home: str) -> Bench:
        begun = None if fresh else store.kept(Bench, rest)
        made = race.run_race(entries, table, context, begun=begun)
        if made.failed or made.stopped:
            raise _NotKept(made)
        return made

    try:
        found = store.produce(Bench, key, make, again=again)
    except _NotKept as left:
        made = left.made
        if made.stopped and not made.failed:
            store.produce(Bench, rest, lambda folder, home: made, again=True)
        return made, False
    store.forget(rest)
    return found


def entered(engines: tuple[Artifact, ...], part: BenchTable) -> tuple[RaceEntry, ...]:
    """Return which engine is measured at which batch.

    Raises:
        RequestError: No engine takes a batch that was asked for, the scenario does not feed it, or an engine without
            images has no frames.
    """
    race.verify_bench_table(part)
    found = []
    for engine in engines:
        if part.span == "frame" and isinstance(engine.preprocess, BareInput):
            raise RequestError(
                f"{engine.label}: span 'frame' begins with pixels, and how they become its input is not known",
                hint="give --span whole, or export the checkpoint again with --input, --mean and --std",
            )
        for batch in part.batch or (_built_for(engine) or 1,):
            if takes(engine, batch):
                found.append(RaceEntry(engine=engine, batch=batch))
    for engine in engines:
        lack = [batch for batch in part.batch if not any(_runs(entry, engine.label, batch) for entry in found)]
        if lack:
            raise RequestError(
                f"{engine.label}: asked for batch {lack[0]}, the engine was built for batch {_built_for(engine)}",
                hint=f"deploykit export CHECKPOINT --batch {lack[0]} (or --dynamic for all), "
                "then quantize and build again; or deploykit deploy CHECKPOINT ... --dynamic",
            )
    for entry in found:
        why = scenarios.get_scenario(part.scenario).why_batch_refused(entry.batch)
        if why:
            raise RequestError(f"{entry.engine.label}: {why}", hint="give --batch 1, or --scenario offline")
    return tuple(found)


def takes(engine: Artifact, batch: int) -> bool:
    """Return whether an engine runs at this batch: it was built for it, or for any."""
    return _built_for(engine) in (None, batch)


def misses(measured: Measurement, part: BenchTable, faster: SpeedUp | None = None) -> tuple[str, ...]:
    """Return each latency limit of the recipe that a measurement does not keep, in words."""
    if measured.emulated and (part.latency_budget_ms is not None or part.fail_on_regression is not None):
        return (f"latency cannot be judged: {measured.emulated}",)
    found = []
    if part.latency_budget_ms is not None:
        found.append(_over_budget(measured, max(part.percentiles), part.latency_budget_ms))
    if part.fail_on_regression is not None and faster is not None:
        found.append(faster.regression(part.fail_on_regression))
    return tuple(filter(None, found))


def _over_budget(measured: Measurement, percent: float, budget_ms: float) -> str:
    said = measured.loadgen
    if said is not None and said.judges_latency:
        return f"LoadGen: latency budget {budget_ms:g} ms not kept: {said.sentence}" if said.over_budget else ""
    value, n = measured.percentile_ms(percent), len(measured.samples_ms)
    if value is None:
        needed = samples_for(percent)
        return f"p{percent:g} cannot be judged: it needs {needed:,} samples (--min-iters {needed}), {n:,} were taken"
    return f"p{percent:g} {value:.4g} ms, at most {budget_ms:g} ms asked for" if value > budget_ms else ""


def _built_for(engine: Artifact) -> int | None:
    """Return the batch that an engine was built for; None where it takes any."""
    batch = engine.inputs[0].shape[0]
    return batch if isinstance(batch, int) and batch > 0 else None


def _runs(entry: RaceEntry, label: str, batch: int) -> bool:
    return entry.engine.label == label and entry.batch == batch


def _key(entries: tuple[RaceEntry, ...], part: BenchTable, stage: str, connection: Connection) -> Key:
    here, address = connection.environment, connection.device.address
    where = (("device", address),) if address else ()  # two boards of one make are two machines
    machine = codec.canonical_json(dict(here.identity))  # what `compare` would hold unlike is measured anew
    readers = _READERS - set(scenarios.get_scenario(part.scenario).needs)
    return Key(
        stage=stage,
        name="bench",
        inputs=tuple(sorted(f"{entry.engine.sha256}/{entry.engine.label}/{entry.batch}" for entry in entries)),
        options=[part.model_dump(exclude=readers), [entry.engine.options for entry in entries]],
        versions=(("stage", VERSION), ("machine", machine), *where),
    )
