"""What `bench` and `compare` share: which engines are meant, how latencies are shown, how the command ends."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy_kit import pipeline
from deploy_kit.base.errors import DeviceError, MeasurementError, RequestError, StageError, UnknownNameError, nearest
from deploy_kit.cli import _steps
from deploy_kit.cli._console import Console, table
from deploy_kit.measure import scenarios
from deploy_kit.pipeline import Run
from deploy_kit.recipe import BenchTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Bench, Comparison, Measurement, NotRun
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import bench, report
from deploy_kit.stages.report import dashboards, device
from deploy_kit.store import write_whole

_NONE = "–"


def engines(
    run: Run, console: Console, part: BenchTable, *, everything: bool, engine: str | None, variant: str | None
) -> tuple[Artifact, ...]:
    """Give the engines that are meant: those named, all, or the newest.

    Raises:
        RequestError: Nothing was built here yet, or nothing that is both.
        UnknownNameError: No engine, or no variant, of a name was built here.
    """
    built = run.store.all(Artifact, "build")
    if everything or engine or variant:
        if not built:
            _steps.newest_engine(run, console)  # raises what a person without engines is told everywhere
        return chosen(built, part, engines=engine, variants=variant)
    newest = _steps.newest_engine(run, console)
    return chosen([one for one in built if one.label == newest.label], part) if part.batch else (newest,)


def verify_load(part: BenchTable, target_qps: float | None) -> None:
    """Refuse a rate of arrivals where nothing arrives.

    Raises:
        RequestError: It was given for another scenario than ``server``.
    """
    if target_qps is not None and "target_qps" not in scenarios.get_scenario(part.scenario).needs:
        raise RequestError(
            f"--target-qps: the scenario '{part.scenario}' runs as fast as it can", hint="--scenario server"
        )


def verify_baseline(part: BenchTable, meant: tuple[Artifact, ...], *, named: str | None, earlier: bool) -> None:
    """Refuse a baseline that is not measured, before any work: one named here, or one that a limit needs.

    Raises:
        RequestError: It is not among the engines.
    """
    labels = [one.label for one in meant]
    if named is not None and named not in labels:
        raise RequestError(f"--baseline: '{named}' is not measured in this run", hint=nearest(named, labels))
    if part.fail_on_regression is not None and not earlier and part.baseline not in labels:
        raise RequestError(
            "--fail-on-regression: nothing to compare with is measured in this run",
            hint="add --baseline 'LABEL' with --all, or --baseline run.json",
        )


def chosen(
    built: list[Artifact], part: BenchTable, *, engines: str | None = None, variants: str | None = None
) -> tuple[Artifact, ...]:
    """Choose engines of the store by engine and variant: of each label the newest that takes a batch asked for.

    Args:
        built: Newest first.
        part: Says the batches.
        engines: Comma list of engines; all if None.
        variants: Comma list of variants; all if None.

    Raises:
        UnknownNameError: No engine, or no variant, of a name was built here.
    """
    known = {"engine": {a.engine or "": a for a in built}, "variant": {a.name: a for a in built}}
    asked = {"engine": _names(engines), "variant": _names(variants)}
    for noun, names in asked.items():
        for name in names:
            if name not in known[noun]:
                raise UnknownNameError(f"no {noun} '{name}' was built here", hint=nearest(name, known[noun]))
    fits = [
        a
        for a in built
        if (not asked["engine"] or a.engine in asked["engine"]) and (not asked["variant"] or a.name in asked["variant"])
    ]
    if not fits:
        raise RequestError(
            f"no engine is both '{engines}' and '{variants}'", hint="deploykit build --engine … --variant …"
        )
    if not part.batch:
        return pipeline.distinct(fits)
    by_batch = [pipeline.distinct([a for a in fits if bench.takes(a, batch)]) for batch in part.batch]
    taking = dict.fromkeys(a for found in by_batch for a in found)
    lacking = [a for a in pipeline.distinct(fits) if a.label not in {b.label for b in taking}]
    return (*taking, *lacking)


def rows(engines: Sequence[Artifact], found: Bench, part: BenchTable) -> list[EngineRow]:
    """Give what was found of each engine, a row a batch."""
    return [row for one in engines for row in pipeline.join(EngineRow(label=one.label, artifact=one), found, part)]


def latencies(tables: Mapping[str, Sequence[EngineRow]], part: BenchTable) -> str:
    """Lay out what was measured, a line a device, engine and batch, and below it what a reader must know.

    Args:
        tables: Rows by device; the device is told where there are several.
        part: What to show.
    """
    several = len(tables) > 1
    percents = [f"p{percent:g}" for percent in part.percentiles]
    lines = [((device,) if several else ()) + _line(row, part) for device, found in tables.items() for row in found]
    notes = [
        f"note: {device}: {note}" if several else f"note: {note}"
        for device, found in tables.items()
        for note in _notes(found)
    ]
    headings = (("device",) if several else ()) + ("engine", "batch", "samples", *percents, "images/s", "verdict")
    shown = table(headings, lines)
    return "\n".join((shown, *([""] if notes else []), *notes))


def comparison(found: Comparison) -> str:
    """Lay out a comparison of two runs."""
    lines = [
        (row.label, str(row.batch), row.speed_up.baseline, row.speed_up.verdict, "; ".join(row.allowed) or _NONE)
        for row in found.rows
    ]
    shown = table(("engine", "batch", "against", "verdict", "not alike"), lines)
    alone = f"\nin one run only: {', '.join(found.alone)}" if found.alone else ""
    return f"{shown}\n\nnote: {found.caveat}{alone}"


def record(
    found: Bench, held: Comparison | None = None, elsewhere: Mapping[str, Bench] | None = None
) -> dict[str, Any]:
    """Give the record with a summary of each measurement in the words of other tools, other devices' beside it."""
    compared = {"comparison": codec.to_json(held)} if held else {}
    beside = {"beside": {name: record(bench) for name, bench in elsewhere.items()}} if elsewhere else {}
    summary = [dashboards.summary(m) for m in found.measurements]
    return {**codec.to_json(found), "summary": summary, **compared, **beside}


def export_times(found: Bench, path: Path) -> None:
    """Write every run as trtexec's ``--exportTimes`` does."""
    write_whole(path, json.dumps(dashboards.times(found), ensure_ascii=False) + "\n")


def missed(rows: Sequence[EngineRow]) -> list[str]:
    """List the limits that are not kept, each with its engine."""
    return [f"{row.label}: {miss}" for row in rows for miss in row.misses]


def regressions(held: Comparison | None, percent: float | None) -> list[str]:
    """List the engines that are slower than in an earlier run by more than `percent`."""
    if held is None or percent is None:
        return []
    return [f"{row.label}: {said}" for row in held.rows if (said := row.speed_up.regression(percent))]


def end(made: Bench, *, at: str = "", allow_invalid: bool = False) -> None:
    """Raise what a bench ends with that is more than a limit.

    Args:
        made: What was measured.
        at: The device, put before the message.
        allow_invalid: Whether the user knows that numbers may be invalid, and goes on.

    Raises:
        StageError: An engine died.
        DeviceError: The device was lost, or no engine can run there.
        MeasurementError: A measurement is not valid.
    """
    if made.failed:
        raise StageError(f"{at}{made.failed[0].label}: {made.failed[0].why}")
    if made.stopped:
        raise DeviceError(
            f"{made.stopped}; the rounds before it are kept",
            hint="the same command goes on from there, without --fresh",
        )
    if not made.measurements:
        raise _steps.not_run(f"{at}{made.not_run[0].label}", made.not_run[0].why)
    if made.invalid and not allow_invalid:
        told = (m.conditions.advice for m in made.measurements if m.conditions)
        commands = "; ".join(dict.fromkeys(command for advice in told for command in advice))
        first = (
            f"an administrator may run: {commands}; then measure" if commands else "change what it names and measure"
        )
        raise MeasurementError(f"{at}{made.invalid[0]}", hint=f"{first} again, or go on knowingly with --allow-invalid")


def _notes(rows: Sequence[EngineRow]) -> list[str]:
    timed = [row.measurement for row in rows if isinstance(row.measurement, Measurement)]
    notes = [f"{m.label}: {note}" for m in timed for note in (*report.notes(m), *device.notes(m))]
    return [*notes, *device.lacks(timed)]


def _line(row: EngineRow, part: BenchTable) -> tuple[str, ...]:
    m = row.measurement
    if not isinstance(m, Measurement):
        why = f"not run: {m.why}" if isinstance(m, NotRun) else row.failed
        return (row.label, _NONE, _NONE, *(_NONE for _ in part.percentiles), _NONE, why)
    values = [m.percentile_ms(percent) for percent in part.percentiles]
    cells = [_NONE if value is None else f"{value:.3f} ms" for value in values]
    words = [
        m.emulated,
        row.speed_up.verdict if row.speed_up else "",
        *row.misses,
        *(["INVALID"] if m.invalid else []),
    ]
    said = "; ".join(filter(None, words)) or ("baseline" if row.label == part.baseline else "measured")
    return (row.label, str(m.batch), str(len(m.samples_ms)), *cells, f"{m.images_per_s:.1f}", said)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()
