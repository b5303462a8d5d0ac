"""Whether the numbers of a report that was read from a file can be: what no run writes is refused before drawing."""

import math
from collections.abc import Iterator
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.machine.environment import library_version
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.readings import Roof
from deploy_kit.records.results import EngineRow, ParityReport, Report

_LONGEST_MS = 1e12  # 30 years

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
        raise _refused(where, ("checkpoint.spec", "a stem, blocks, and levels of a decoder", "none"))
    for place, row in enumerate(report.rows):
        if isinstance(row.parity, ParityReport):
            for fault in _in_parity(row.parity):
                raise _refused(f"{where}: rows[{place}].parity", fault)
        if isinstance(row.measurement, Measurement):
            verify_measurement(row.measurement, f"{where}: rows[{place}].measurement")
        for fault in _in_row(row, report):
            raise _refused(f"{where}: rows[{place}]", fault)


def verify_delivered(report: Report, folder: Path) -> None:
    """Refuse a report whose delivered files lie beside it and are not those it speaks of; absent ones are passed over.

    Args:
        report: As it was read.
        folder: Folder of its record.

    Raises:
        InputError: A file has another sha256 than the report says.
    """
    engines = {row.label: row.artifact.sha256 for row in report.rows if row.artifact}
    for label, name in report.delivered:
        for engine, ending, _, wanted in report.parts:
            file = (folder / name).with_suffix(ending)
            if engine == engines.get(label) and file.is_file() and (found := sha256_of(file)) != wanted:
                raise InputError(
                    f"{file}: expected sha256 {wanted}, as the report says, found {found}",
                    hint="get the file again from whoever made the report, or run deploykit again",
                )


def verify_measurement(measured: Measurement, where: str) -> None:
    """Refuse a measurement whose numbers cannot be; `where` names its place.

    Raises:
        InputError: A number is outside of its range; the message names its field.
    """
    for fault in (*_in_times(measured), *(_in_roof(measured.roof) if measured.roof else ())):
        raise _refused(where, fault)


def _in_parity(parity: ParityReport) -> Iterator[Fault]:
    if parity.n < 1:
        yield "n", "at least one image", parity.n
    for name in ("agreement", "top1", "top1_reference"):
        value = getattr(parity, name)
        if value is not None and not 0 <= value <= 1:
            yield name, "a share in 0..1", value


def _in_row(row: EngineRow, report: Report) -> Iterator[Fault]:
    """Find numbers of an engine that contradict each other."""
    engine = row.artifact.sha256 if row.artifact else None
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
    faster, timed = row.speed_up, row.measurement
    ours = report.version == library_version("deploykit")  # another one may compute a ratio otherwise
    if not ours or faster is None or not isinstance(timed, Measurement):
        return
    others = (other.measurement for other in report.rows if other.label == faster.baseline)
    base = next((m for m in others if isinstance(m, Measurement) and m.batch == timed.batch), None)
    told = speed_up(base, timed) if base is not None else None
    if told is not None and faster.interleaved == told.interleaved and not _same(told.ratio, faster.ratio):
        yield "speed_up.ratio", f"{told.ratio:.4g}, as the samples give", faster.ratio


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def _in_times(measured: Measurement) -> Iterator[Fault]:
    samples, rounds = measured.samples_ms, measured.rounds
    for name in ("samples_ms", "starts_ms"):
        wrong = next((value for value in getattr(measured, name) if not 0 <= value <= _LONGEST_MS), None)
        if wrong is not None:
            yield name, "times in ms", wrong
    if not samples or (rounds and rounds[0] != 0) or not rounds:
        yield "rounds", "samples in rounds, the first of which begins with sample 0", list(rounds[:1])
    elif list(rounds) != sorted(set(rounds)) or rounds[-1] >= len(samples):
        yield "rounds", f"ascending places among {len(samples)} samples", list(rounds)
    if measured.batch < 1:
        yield "batch", "at least 1", measured.batch


def _in_roof(roof: Roof) -> Iterator[Fault]:
    for name in ("peak_ops_s", "bandwidth_b_s", "moved_bytes", "macs"):
        value = getattr(roof, name)
        if not 0 < value < math.inf or value > 1e24:
            yield f"roof.{name}", "a number above 0", value


def _refused(where: str, fault: Fault) -> InputError:
    field, expected, found = fault
    return InputError(
        f"{where}.{field}: expected {expected}, found {found}", hint="give the file as deploykit wrote it"
    )
