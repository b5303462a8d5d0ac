"""Two runs against each other: refused where they were not measured alike, else a ratio with its interval."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from deploy_kit.base.errors import InputError, MeasurementError, RecipeError, RequestError, no_such_file
from deploy_kit.base.text_files import read_json
from deploy_kit.measure import latency
from deploy_kit.records import codec
from deploy_kit.records.measurements import Bench, Compared, Comparison, Environment, Measurement, SpeedUp
from deploy_kit.records.results import EngineRow, Report
from deploy_kit.stages.report import plausible

# What `bench --json` prints beside the record.
_BESIDE = {"summary", "comparison", "beside"}
Difference = tuple[str, str, str]
"""(name, of the baseline, of the candidate)."""


def read_bench(path: Path) -> Bench:
    """Read the measurements of a run; see `read_run`."""
    return read_run(path)[0]


def read_run(path: Path) -> tuple[Bench, tuple[EngineRow, ...]]:
    """Read a run: what ``bench --json`` prints, or a ``report.json``.

    Returns:
        Its measurements, and the rows of a report; no rows for a bench alone.

    Raises:
        InputError: Missing, or neither of the two, or without a measurement.
    """
    report: Report | None = None
    try:
        data = read_json(path)
        if "rows" in data:
            report = codec.from_json(Report, data, path.name)
            timed = (row.measurement for row in report.rows if isinstance(row.measurement, Measurement))
            found = Bench(measurements=tuple(timed))
        else:
            found = codec.from_json(Bench, {k: v for k, v in data.items() if k not in _BESIDE}, path.name)
    except FileNotFoundError as error:
        raise no_such_file(path, hint="deploykit bench --json > run.json") from error
    except (ValueError, AttributeError, TypeError, InputError, RecipeError) as error:
        raise InputError(
            f"{path}: expected a run, found none: {error}", hint="deploykit bench --json > run.json, or a report.json"
        ) from error
    if not found.measurements:
        raise InputError(
            f"{path}: expected a run, found one without measurements",
            hint="deploykit bench --json > run.json; for a report.json, deploykit bench and deploykit report",
        )
    if report is not None:
        plausible.verify_report(report, str(path))
        return found, report.rows
    for measured in found.measurements:
        plausible.verify_measurement(measured, f"{path}: {measured.label}")
    return found, ()


def compare_runs(baseline: Bench, candidate: Bench, *, allow: tuple[str, ...] = ()) -> Comparison:
    """Compare what both runs have.

    Args:
        baseline: The run to hold against.
        candidate: The other.
        allow: Names of differences to accept, e.g. ``versions``; ``environment`` for all of the machine's.

    Raises:
        RequestError: They have no engine in common, or were not measured alike.
        MeasurementError: A measurement is not valid, or its machine is emulated.
    """
    pairs = list(_pairs(baseline, candidate))
    if not pairs:
        theirs, ours = (", ".join(sorted({m.label for m in b.measurements})) for b in (baseline, candidate))
        raise RequestError(f"no engine is in both runs: {theirs} in the first, {ours} in the second")
    rows = tuple(_compared(old, new, allow) for old, new in pairs)
    both = {m.label for pair in pairs for m in pair}
    labels = dict.fromkeys(m.label for b in (baseline, candidate) for m in b.measurements)
    return Comparison(
        rows=rows,
        baseline_when=pairs[0][0].when,
        candidate_when=pairs[0][1].when,
        alone=tuple(label for label in labels if label not in both),
    )


def compare_apart(rows: Iterable[EngineRow]) -> tuple[list[EngineRow], list[str]]:
    """Compare engines with fp32 engines of other runs, where their own run had none: what single steps leave.

    Args:
        rows: Engines, each with the newest measurement of it.

    Returns:
        The rows, with speed-ups that say that they were measured apart; and for each engine that could not be compared
        a sentence that says why.
    """
    rows, told = list(rows), list[str]()
    floats = [
        (row.artifact.engine, m)
        for row in rows
        if (m := _measured(row)) and row.artifact and row.artifact.precision == "fp32"
    ]
    for place, row in enumerate(rows):
        measured = _measured(row)
        if measured is None or row.artifact is None or row.artifact.precision == "fp32" or row.speed_up is not None:
            continue
        own = row.artifact.engine
        alike = sorted((found for found in floats if found[1].batch == measured.batch), key=lambda f: f[0] != own)
        why = _why_not_compared(alike[0][1], measured) if alike else "no fp32 engine was measured at its batch"
        if why:
            told.append(f"{row.label}: no speed-up: {why}; deploykit bench --all measures them in one run")
            continue
        ratio, low, high = latency.ratio_apart(alike[0][1].samples_ms, measured.samples_ms)
        faster = SpeedUp(ratio=ratio, low=low, high=high, baseline=alike[0][1].label, interleaved=False)
        rows[place] = replace(row, speed_up=faster)
    return rows, told


def _why_not_compared(old: Measurement, new: Measurement) -> str:
    for one in (old, new):
        if one.invalid or one.emulated:
            return f"the times of {one.label} are {one.emulated or 'not valid'}"
    words = "; ".join(f"{name} {a or 'nothing'} and {b or 'nothing'}" for name, a, b in unlike(old, new))
    return words and f"{old.label} was not measured alike: {words}"


def _measured(row: EngineRow) -> Measurement | None:
    return row.measurement if isinstance(row.measurement, Measurement) else None


def verify_valid(measured: Measurement, which: str) -> None:
    """Refuse a measurement that is worth no comparison.

    Args:
        measured: A measurement of a run.
        which: The run, as the user knows it.

    Raises:
        MeasurementError: It is marked invalid.
    """
    if measured.invalid:
        raise MeasurementError(
            f"{which}: {measured.label}: its measurement is not valid: {measured.invalid[0]}",
            hint="measure it again on a quiet machine: deploykit bench --json > run.json",
        )


def unlike(old: Measurement, new: Measurement) -> list[Difference]:
    """List everything that was set differently in two measurements, the engines' files aside."""
    plain = [
        (name, str(getattr(old, name)), str(getattr(new, name))) for name in ("scenario", "batch", "span", "streams")
    ]
    here, there = old.environment, new.environment
    pairs = zip(here.identity, there.identity, strict=True)
    machine = [(name, _word(a), _word(b)) for (name, a), (_, b) in pairs if name != "versions"]
    settings = _by_name(old.settings, new.settings, "")
    versions = _by_name(here.versions, there.versions, "versions.")
    return [found for found in (*plain, *settings, *machine, *versions) if found[1] != found[2]]


def _pairs(baseline: Bench, candidate: Bench) -> Iterator[tuple[Measurement, Measurement]]:
    """Pair by label and batch; by label alone where no batch is common; a single engine with a single engine."""
    olds, news = baseline.measurements, candidate.measurements
    if len(olds) == len(news) == 1:
        yield olds[0], news[0]
        return
    for new in news:
        same = [old for old in olds if old.label == new.label]
        alike = [old for old in same if old.batch == new.batch]
        if same:
            yield (alike or same)[0], new


def _compared(old: Measurement, new: Measurement, allow: tuple[str, ...]) -> Compared:
    for which, measured in (("the baseline", old), ("the other run", new)):
        verify_valid(measured, which)
        if measured.emulated:
            raise MeasurementError(
                f"{measured.label}: its times are {measured.emulated} (by {measured.environment.emulated})",
                hint="measure on the device itself",
            )
    found = unlike(old, new)
    refused = [one for one in found if not _allowed(one[0], allow)]
    if refused:
        words = "; ".join(f"{name} {a or 'nothing'} and {b or 'nothing'}" for name, a, b in refused)
        names = ",".join(dict.fromkeys(name.split(".")[0] for name, _, _ in refused))
        raise RequestError(
            f"{new.label}: not measured alike: {words}",
            hint=f"measure both alike; if the difference is what you ask about: deploykit compare --allow {names}",
        )
    ratio, low, high = latency.ratio_apart(old.samples_ms, new.samples_ms)
    faster = SpeedUp(ratio=ratio, low=low, high=high, baseline=old.label, interleaved=False)
    allowed = tuple(f"{name} {a or 'nothing'} and {b or 'nothing'}" for name, a, b in found)
    return Compared(label=new.label, batch=new.batch, speed_up=faster, allowed=allowed)


def _allowed(name: str, allow: tuple[str, ...]) -> bool:
    machine = {field.name for field in fields(Environment)}
    first = name.split(".")[0]
    return name in allow or first in allow or (first in machine and "environment" in allow)


def _by_name(old: tuple[tuple[str, str], ...], new: tuple[tuple[str, str], ...], prefix: str) -> list[Difference]:
    ours, theirs = dict(old), dict(new)
    return [(prefix + name, ours.get(name, ""), theirs.get(name, "")) for name in dict.fromkeys([*ours, *theirs])]


def _word(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
