"""Engines and what was measured of them: speed-ups over the baseline, limits that are missed, remarks."""

import dataclasses
from collections.abc import Sequence

from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.recipe import BenchTable
from deploy_kit.records.measurements import Bench, Measurement
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import bench, simplify

_BASELINE = "fp32 · "


def with_measurement(row: EngineRow, measured: Bench, part: BenchTable) -> tuple[EngineRow, ...]:
    """Put a row's measurement, its speed-up over the baseline and the limits it misses into it: a row for each batch.

    Args:
        row: Without a measurement.
        measured: All of one run.
        part: Names the baseline and the limits.
    """
    mine = [m for m in measured.measurements if (m.label, m.artifact) == (row.label, _hash_of(row))]
    if not mine:
        absent = next((entry for entry in measured.not_run if entry.label == row.label), None)
        died = next((entry.why for entry in measured.failed if entry.label == row.label), "")
        return (dataclasses.replace(row, measurement=absent, failed=died),)
    baseline = default_baseline(part, [m.label for m in measured.measurements])
    rows = []
    for one in mine:
        base = next((m for m in measured.measurements if (m.label, m.batch) == (baseline, one.batch)), None)
        faster = speed_up(base, one) if base is not None and base is not one else None
        missed = bench.misses(one, part, faster)
        rows.append(dataclasses.replace(row, measurement=one, speed_up=faster, misses=missed))
    return tuple(rows)


def default_baseline(part: BenchTable, labels: Sequence[str]) -> str | None:
    """Return the label that speed-ups refer to: the table's, or where it names none the first fp32 engine measured.

    Of a file that carries its precision the graph as it was given stands for fp32.
    """
    given = f"{simplify.GIVEN} · "
    named = {_BASELINE + label.partition(given)[2]: label for label in labels if given in label}
    named |= {label: label for label in labels if label.startswith(_BASELINE)}
    return named.get(part.baseline, part.baseline) if part.baseline else next(iter(named.values()), None)


def unsteady_remarks(measured: Bench) -> list[str]:
    """List in words which latencies are none or were not steady, and what went wrong with the run."""
    remarks = [f"{m.label}: its times are {m.emulated}" for m in measured.measurements if m.emulated]
    remarks += [f"{m.label} was not steady: {m.drift}" for m in measured.measurements if m.drift]
    remarks += [f"no valid measurement: {why}" for why in measured.invalid]
    if measured.stopped:
        remarks.append(f"{measured.stopped}; the same command goes on from there")
    return remarks


def unlike_remarks(rows: Sequence[EngineRow]) -> list[str]:
    """List in words which latencies and their baselines are of other numbers of threads, or of other processors."""
    timed = {(row.label, m.batch): m for row in rows if isinstance(m := row.measurement, Measurement)}
    remarks = []
    for row in rows:
        found = row.measurement
        if not isinstance(found, Measurement) or row.speed_up is None:
            continue
        baseline = timed.get((row.speed_up.baseline, found.batch))
        ours, theirs = dict(found.settings), dict(baseline.settings) if baseline else {}
        for what in ("threads", "device"):
            mine, other = ours.get(what), theirs.get(what)
            if mine and other and mine.casefold() != other.casefold():
                remarks.append(
                    f"{row.label} ran with {what} {mine}, and its baseline {row.speed_up.baseline} with {other}"
                )
    return remarks


def not_faster_remarks(rows: list[EngineRow], measured: Bench) -> list[str]:
    """List in words which int8 engines are not faster than the same engine's fp32."""
    timed = {measurement.label: measurement for measurement in measured.measurements}
    remarks = []
    for row in rows:
        if row.artifact is None or row.artifact.precision != "int8" or row.label not in timed:
            continue
        baseline = timed.get(f"fp32 · {row.artifact.engine}")
        if baseline is None:
            continue
        gain = speed_up(baseline, timed[row.label])
        if gain is not None and gain.low <= 1:
            word = "is not shown to be faster" if gain.noise else "is slower"
            interval = f"{gain.ratio:.2f}× [{gain.low:.2f}, {gain.high:.2f}]"
            remarks.append(f"{row.label} {word} than {gain.baseline} on this machine: {interval}")
    return remarks


def _hash_of(row: EngineRow) -> str:
    return row.artifact.sha256 if row.artifact else ""
