"""Whether the numbers of a report that was read from a file can be: what no run writes is refused before drawing."""

import math
import statistics
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from deploy_kit.accuracy import paired
from deploy_kit.base.errors import InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.machine.environment import library_version
from deploy_kit.measure import latency
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.records.artifacts import ReferenceLogits
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.parity import Drop
from deploy_kit.records.readings import Roof
from deploy_kit.records.results import EngineRow, ParityReport, Report

_LONGEST_MS = 1e12  # 30 years
_MOST_ROUNDS = 100  # the test of drift takes memory by their square: 160 MB for so many
_MOST_IMAGES = 10_000_000  # McNemar's test takes seconds for so many

Fault = tuple[str, str, object]
"""(field, what was expected, what was found)."""


def verify_report(report: Report, where: str) -> None:
    """Refuse a report whose numbers cannot be.

    Args:
        report: As it was read.
        where: File that it was read from.

    Raises:
        InputError: A number is outside of its range; the message names its field.
    """
    spec = report.checkpoint.spec
    if spec is not None and not (
        spec.stem and spec.blocks and (spec.decoder is None or spec.decoder.levels or spec.decoder.pyramid)
    ):
        raise refused(where, ("checkpoint.spec", "a stem, blocks, and levels of a decoder", "none"))
    exported = report.lineage[0] if report.lineage and report.lineage[0].stage == "export" else None
    if exported and exported.parent != report.checkpoint.sha256:
        told = f"{exported.parent}, the parent of lineage[0]"
        raise refused(where, ("checkpoint.sha256", told, report.checkpoint.sha256))
    for place, row in enumerate(report.rows):
        if isinstance(row.parity, ParityReport):
            for fault in chain(_in_parity(row.parity), _beside_answers(row.parity, report.answers)):
                raise refused(f"{where}: rows[{place}].parity", fault)
        if isinstance(row.measurement, Measurement):
            verify_measurement(row.measurement, f"{where}: rows[{place}].measurement")
        for fault in _in_row(row, report):
            raise refused(f"{where}: rows[{place}]", fault)


def verify_delivered(report: Report, folder: Path) -> int:
    """Refuse a report whose delivered files lie beside it and are not those it speaks of; absent ones are passed over.

    Args:
        report: As it was read.
        folder: Folder of its record.

    Returns:
        The number of files that were compared.

    Raises:
        InputError: A file has another sha256 than the report says.
    """
    rows, compared = {row.label: row for row in report.rows if row.artifact}, 0
    for label, name in report.delivered:
        row = rows.get(label)
        for engine, ending, _, wanted in report.parts:
            file = (folder / name).with_suffix(ending)
            if row is None or row.artifact is None or engine != row.artifact.sha256 or not file.is_file():
                continue
            if (found := sha256_of(file)) != wanted:
                raise InputError(
                    f"{file}: expected sha256 {wanted}, as the report says, found {found}",
                    hint="get the file again from whoever made the report, or run deploykit again",
                )
            compared += 1
    return compared


def verify_measurement(measured: Measurement, where: str) -> None:
    """Refuse a measurement whose numbers cannot be; `where` names its place.

    Raises:
        InputError: A number is outside of its range; the message names its field.
    """
    roof = _in_roof(measured.roof) if measured.roof else ()
    for fault in chain(_in_times(measured), roof, _in_findings(measured)):  # findings of times that can be
        raise refused(where, fault)


def _in_parity(parity: ParityReport) -> Iterator[Fault]:
    if parity.n < 1:
        yield "n", "at least one image", parity.n
    for name in ("agreement", "top1", "top1_reference"):
        value = getattr(parity, name)
        if value is not None and not 0 <= value <= 1:
            yield name, "a share in 0..1", value


def _beside_answers(parity: ParityReport, answers: ReferenceLogits) -> Iterator[Fault]:
    """Find what contradicts the images and the checkpoint's outputs that the engine was compared with."""
    if parity.n != answers.n:
        yield "n", f"{answers.n}, as in answers", parity.n
    own = parity.top1_reference
    if own is not None and answers.top1 is not None and not _same(own, answers.top1):
        yield "top1_reference", f"{answers.top1:g}, as in answers", own
    if parity.task is not None:
        return
    yield from _in_classes(parity)
    if parity.flips is None:
        return
    if not _same(1 - parity.flips.n / parity.n, parity.agreement):
        told = f"{1 - parity.flips.n / parity.n:g}, as {parity.flips.n} of {parity.n} flipped"
        yield "agreement", told, parity.agreement
    changed = (parity.drop.lost or 0) + (parity.drop.won or 0) if parity.drop is not None else 0
    if changed > parity.flips.n:
        yield "flips.n", f"at least the {changed} images lost and won", parity.flips.n


def _in_classes(parity: ParityReport) -> Iterator[Fault]:
    """Compute top-1 accuracies again from the recalls of the classes, where each image has one."""
    scored = parity.scores
    if scored is None or scored.measure != "recall" or sum(one.n for one in scored.classes) != parity.n:
        return
    for name, share in (("top1_reference", "reference"), ("top1", "found")):
        told = getattr(parity, name)
        again = sum(one.n * getattr(one, share) for one in scored.classes) / parity.n
        if told is not None and not _same(again, told):
            yield name, f"{again:g}, as the recalls of the classes give", told


def _in_drop(drop: Drop, parity: ParityReport) -> Iterator[Fault]:
    """Compute a drop again from its counts, where the record has them."""
    lost, won = drop.lost, drop.won
    if drop.what != "top-1" or lost is None or won is None or parity.n > _MOST_IMAGES:
        return
    if min(lost, won) < 0 or lost + won > parity.n:
        yield "parity.drop", f"0 to {parity.n} images lost and won", f"{lost} and {won}"
        return
    again = paired.drop_of_counts(lost, won, parity.n, parity.limits.max_drop)
    for name in ("points", "low", "high", "p", "needed"):
        wanted, found = getattr(again, name), getattr(drop, name)
        if not _same(wanted, found):
            yield f"parity.drop.{name}", f"{wanted}, as {lost} lost and {won} won of {parity.n} give", found


def _in_row(row: EngineRow, report: Report) -> Iterator[Fault]:
    """Find numbers of an engine that contradict each other."""
    engine = row.artifact.sha256 if row.artifact else None
    files = [digest for of, _, _, digest in report.parts if of == engine]
    of_one_file = row.artifact is not None and row.artifact.built is None and len(files) == 1
    if of_one_file and files[0] != engine and is_ours(report.version):
        yield "artifact.sha256", f"{files[0]}, as in parts", engine
    for name, part in (("parity", row.parity), ("measurement", row.measurement)):
        if engine and isinstance(part, ParityReport | Measurement) and part.artifact != engine:
            yield f"{name}.artifact", f"the engine's sha256, {engine}", part.artifact
    parity = row.parity
    if isinstance(parity, ParityReport) and parity.drop is not None:
        drop = parity.drop
        if parity.drop_pp is not None and not _same(parity.drop_pp, drop.points):
            yield "parity.drop_pp", f"{drop.points:g}, as in parity.drop", parity.drop_pp
        if parity.top1 is not None and parity.top1_reference is not None and drop.what == "top-1":
            lost = 100 * (parity.top1_reference - parity.top1)
            if not _same(lost, drop.points):
                yield "parity.drop.points", f"{lost:g}, the difference of both accuracies", drop.points
        if is_ours(report.version):
            yield from _in_drop(drop, parity)
        half = (drop.high - drop.low) / 2
        if parity.drop_pp_interval is not None and not _same(parity.drop_pp_interval, half):
            yield "parity.drop_pp_interval", f"{half:g}, half the width of parity.drop", parity.drop_pp_interval
    faster, timed = row.speed_up, row.measurement
    if not is_ours(report.version) or faster is None or not isinstance(timed, Measurement):
        return
    others = (other.measurement for other in report.rows if other.label == faster.baseline)
    base = next((m for m in others if isinstance(m, Measurement) and m.batch == timed.batch), None)
    told = speed_up(base, timed) if base is not None else None
    if told is not None and faster.interleaved == told.interleaved and not _same(told.ratio, faster.ratio):
        yield "speed_up.ratio", f"{told.ratio:.4g}, as the samples give", faster.ratio


def is_ours(version: str) -> bool:
    """Return whether this version of deploykit made a record: another one may compute its numbers otherwise."""
    return version == library_version("deploykit")


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))


def _in_times(measured: Measurement) -> Iterator[Fault]:
    samples, rounds = measured.samples_ms, measured.rounds
    for name, least in (("samples_ms", math.ulp(0.0)), ("starts_ms", 0.0)):  # no run takes no time: ratios divide by it
        wrong = next((value for value in getattr(measured, name) if not least <= value <= _LONGEST_MS), None)
        if wrong is not None:
            yield name, "times in ms", wrong
    if not samples or (rounds and rounds[0] != 0) or not rounds:
        yield "rounds", "samples in rounds, the first of which begins with sample 0", list(rounds[:1])
    elif list(rounds) != sorted(set(rounds)) or rounds[-1] >= len(samples):
        yield "rounds", f"ascending places among {len(samples)} samples", list(rounds)
    if measured.batch < 1:
        yield "batch", "at least 1", measured.batch


def _in_findings(measured: Measurement) -> Iterator[Fault]:
    """Find a drift that the samples do not show, and a fault of the test that was left out."""
    if not is_ours(dict(measured.environment.versions).get("deploykit", "")):
        return
    if len(measured.rounds) <= _MOST_ROUNDS:
        drift = latency.describe_drift([statistics.median(turn) for turn in measured.by_round])
        if drift != measured.drift:
            yield "drift", f"'{drift}', as the samples give", f"'{measured.drift}'"
    loadgen = measured.loadgen
    if loadgen is not None and not (loadgen.valid or loadgen.over_budget or measured.invalid):
        yield "invalid", "why, as LoadGen says INVALID", "none"


def _in_roof(roof: Roof) -> Iterator[Fault]:
    for name in ("peak_ops_s", "bandwidth_b_s", "moved_bytes", "macs"):
        value = getattr(roof, name)
        if not 0 < value < math.inf or value > 1e24:
            yield f"roof.{name}", "a number above 0", value


def refused(where: str, fault: Fault) -> InputError:
    """Make the error for a number that cannot be; `where` names the record."""
    field, expected, found = fault
    return InputError(
        f"{where}.{field}: expected {expected}, found {found}", hint="give the file as deploykit wrote it"
    )
