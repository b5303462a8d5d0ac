"""Whether the numbers of a report that was read from a file can be: what no run writes is refused before drawing."""

import math
from collections.abc import Iterator

from deploy_kit.base.errors import InputError
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.readings import Roof
from deploy_kit.records.results import ParityReport, Report

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
