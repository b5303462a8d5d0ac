"""A report's table of engines as text cells: Markdown, HTML and the terminal draw the same ones."""

import math
import re

from deploy_kit.records.measurements import Measurement, SpeedUp
from deploy_kit.records.results import EngineRow, ParityReport, Report
from deploy_kit.records.verdict import Word

HEADINGS = ("artifact", "size", "top-1", "drop", "agreement", "p50", "p99", "speed-up", "verdict")
NONE = "–"
_SUMMARIES: dict[Word, str] = {
    "accepted": "Every engine that ran keeps its limits.",
    "rejected": "At least one engine is rejected.",
    "undecided": "No engine is rejected, and at least one is undecided.",
}


def cells(row: EngineRow) -> tuple[str, ...]:
    """Return one line of the table: a text for each of `HEADINGS`."""
    artifact, parity, measured, faster = row.artifact, row.parity, row.measurement, row.speed_up
    checked = parity if isinstance(parity, ParityReport) else None
    timed = measured if isinstance(measured, Measurement) else None
    drop = NONE
    if checked and checked.drop:
        drop = f"{checked.drop.points:+.2f} [{checked.drop.low:+.2f}, {checked.drop.high:+.2f}]"
    elif checked and checked.drop_pp is not None and checked.drop_pp_interval is not None:
        # Reports written before the paired interval have a symmetric one.
        drop = f"{checked.drop_pp:+.2f} ± {checked.drop_pp_interval:.2f}"
    return (
        row.label,
        size(artifact.size_bytes) if artifact else NONE,
        _score(checked) if checked else NONE,
        drop,
        f"{100 * checked.agreement:.2f} %" if checked else NONE,
        _with_validity(timed, 50),
        _with_validity(timed, 99),
        interval(faster) + (" (INVALID)" if timed and timed.invalid else "") if faster else NONE,
        row.verdict,
    )


def _score(checked: ParityReport) -> str:
    """Write top-1, or the score of another task with its name."""
    scored = checked.task
    if scored is not None and scored.found is not None:
        return f"{scored.measure} {100 * scored.found:.2f} %"
    return f"{100 * checked.top1:.2f} %" if checked.top1 is not None else NONE


def typed(label: str) -> str:
    """Write a label as it can be typed: ``int8@openvino`` for ``int8 · openvino``."""
    return label.replace(" · ", "@")


def plain(label: str) -> str:
    """Return what is equal for all ways to type a label: ``int8 · openvino``, ``int8@openvino``, ``int8 openvino``."""
    return re.sub(r"[\s·@]+", " ", label).strip()


def summary(report: Report) -> str:
    """Return the verdict on all engines, with the time and the version."""
    checked = [row for row in report.rows if row.judged is not None]
    verdict = _SUMMARIES[report.verdict] if checked else "No engine was checked."
    if report.verdict == "undecided" and checked and all(row.accurate for row in checked):
        verdict = "The accuracy of every engine is accepted, and at least one latency is not valid."
    return f"{verdict} Made {report.when} by deploykit {report.version}."


def interval(faster: SpeedUp) -> str:
    """Write a ratio with its interval, e.g. ``1.52× [1.40, 1.60]``; without one where there are too few rounds."""
    apart = "" if faster.interleaved else " (measured apart)"
    if math.isinf(faster.high):
        return f"{faster.ratio:.2f}×{apart}"
    return f"{faster.ratio:.2f}× [{faster.low:.2f}, {faster.high:.2f}]{apart}"


def size(n_bytes: int) -> str:
    """Write a file size, e.g. ``1.25 MB``."""
    return f"{n_bytes / 1e6:.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


def percentile(measured: Measurement | None, percent: int) -> str:
    """Write a latency percentile in ms; a dash where the samples do not carry it."""
    value = measured.percentile_ms(percent) if measured else None
    return NONE if measured is None or value is None else marked(f"{value:.3f} ms", measured)


def marked(number: str, measured: Measurement) -> str:
    """Mark a number that was measured on an emulated machine."""
    return f"{number} ({measured.emulated})" if measured.emulated else number


def _with_validity(measured: Measurement | None, percent: int) -> str:
    text = percentile(measured, percent)
    return f"{text} (INVALID)" if measured and measured.invalid and text != NONE else text
