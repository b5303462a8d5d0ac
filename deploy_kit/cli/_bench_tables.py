"""Latencies and comparisons as tables for the terminal."""

from collections.abc import Mapping, Sequence

from deploy_kit.analysis import latency_rows
from deploy_kit.cli._console import table
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.engine_table import NONE
from deploy_kit.records.measurements import Bench, Comparison, Measurement, NotRun
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import report
from deploy_kit.stages.report import device

_FRAME = "times from pixels in memory to the class; engines that take floats with numpy's normalization"


def rows_of(engines: Sequence[Artifact], measured: Bench, part: BenchTable) -> list[EngineRow]:
    """Return a row for each engine and batch."""
    unmeasured = (EngineRow(label=engine.label, artifact=engine) for engine in engines)
    return [row for engine in unmeasured for row in latency_rows.with_measurement(engine, measured, part)]


def latencies(rows_by_device: Mapping[str, Sequence[EngineRow]], part: BenchTable) -> str:
    """Lay out what was measured, a line for each device, engine and batch, with notes below.

    Args:
        rows_by_device: Rows of each device; its name is shown where there are several.
        part: Names the percentiles and the baseline.
    """
    several = len(rows_by_device) > 1
    percentiles = [f"p{percent:g}" for percent in part.percentiles]
    lines = [
        ((device_name,) if several else ()) + _line(row, part)
        for device_name, rows in rows_by_device.items()
        for row in rows
    ]
    notes = [
        f"note: {device_name}: {note}" if several else f"note: {note}"
        for device_name, rows in rows_by_device.items()
        for note in _notes(rows, part)
    ]
    headings = (("device",) if several else ()) + ("engine", "batch", "samples", *percentiles, "images/s", "verdict")
    one_batch = len({line[1 + several] for line in lines}) == 1
    spare = ("samples", "images/s", *(("batch",) if one_batch else ()), *percentiles[1:-1])
    drawn = table(headings, lines, spare=spare)
    return "\n".join((drawn, *([""] if notes else []), *notes))


def comparison(compared: Comparison) -> str:
    """Lay out a comparison of two runs."""
    lines = [
        (row.label, str(row.batch), row.speed_up.baseline, row.speed_up.verdict, "; ".join(row.allowed) or NONE)
        for row in compared.rows
    ]
    drawn = table(("engine", "batch", "against", "verdict", "accepted differences"), lines)
    alone = f"\nin one run only: {', '.join(compared.alone)}" if compared.alone else ""
    return f"{drawn}\n\nnote: {compared.caveat}{alone}"


def _notes(rows: Sequence[EngineRow], part: BenchTable) -> list[str]:
    timed = [row.measurement for row in rows if isinstance(row.measurement, Measurement)]
    notes = [_FRAME] if any(m.span == "frame" for m in timed) else []
    several = len({m.batch for m in timed}) > 1
    for m in timed:
        where = f"{m.label}, batch {m.batch}" if several else m.label
        notes += [f"{where}: {note}" for note in (*report.notes(m), *device.notes(m))]
    notes += latency_rows.unlike_remarks(rows)
    return [*notes, *device.lacks(timed, energy=part.energy)]


def _line(row: EngineRow, part: BenchTable) -> tuple[str, ...]:
    m = row.measurement
    if not isinstance(m, Measurement):
        why = f"not run: {m.why}" if isinstance(m, NotRun) else row.failed
        return (row.label, NONE, NONE, *(NONE for _ in part.percentiles), NONE, why)
    values = [m.percentile_ms(percent) for percent in part.percentiles]
    cells = [NONE if value is None else f"{value:.3f} ms" for value in values]
    budget, judged = part.latency_budget_ms, m.percentile_ms(max(part.percentiles))
    kept = budget is not None and judged is not None and not (m.emulated or m.invalid or row.misses)
    verdicts = [
        m.emulated,
        row.speed_up.verdict if row.speed_up else "",
        *row.misses,
        f"p{max(part.percentiles):g} ≤ {budget:g} ms: kept" if kept else "",
        *(["INVALID"] if m.invalid else []),
    ]
    verdict = "; ".join(filter(None, verdicts)) or ("baseline" if row.label == part.baseline else "measured")
    return (row.label, str(m.batch), str(len(m.samples_ms)), *cells, f"{m.images_per_s:.1f}", verdict)
