"""Two runs drawn over one another: ratios with their intervals, latencies, and accuracies where both were checked."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from deploy_kit.base.markup import Markup, element
from deploy_kit.records import first_page
from deploy_kit.records.measurements import Comparison, Measurement
from deploy_kit.records.results import EngineRow
from deploy_kit.stages.report import page
from deploy_kit.stages.report.page import plot, spread, tables, tradeoff
from deploy_kit.stages.report.page.plot import Look

_BEFORE, _AFTER = Look(color="c6", shape="circle"), Look(color="c1", shape="square")
_ROW, _NAMES = 28, 150


@dataclass(frozen=True, kw_only=True)
class RunDrawn:
    """One of two runs.

    Attributes:
        name: Its file.
        measurements: What it measured.
        rows: Rows of its report; empty where it is a bench alone.
    """

    name: str
    measurements: tuple[Measurement, ...]
    rows: tuple[EngineRow, ...] = ()


def comparison_page(compared: Comparison, baseline: RunDrawn, candidate: RunDrawn) -> str:
    """Return the page of a comparison."""
    title = f"{candidate.name} against {baseline.name}"
    headings = ("engine", "batch", "speed-up", "verdict", "accepted differences")
    cells = [
        (
            row.label,
            str(row.batch),
            f"{row.speed_up.ratio:.2f}×",
            row.speed_up.verdict,
            "; ".join(row.allowed) or "none",
        )
        for row in compared.rows
    ]
    top = element(
        "header",
        element("p", "deploykit comparison", class_="kicker"),
        element("h1", element("bdi", title)),
        element("p", compared.caveat, class_="verdict"),
        element(
            "ul", *(element("li", f"only in one of the runs: {label}") for label in compared.alone), class_="remarks"
        ),
    )
    table = element("section", element("h2", "Engines"), tables.table(headings, cells, class_="engines"))
    drawn = (_ratios(compared), _latencies(compared, baseline, candidate), _accuracies(baseline, candidate))
    pictures = element("div", *(one for one in drawn if one is not None), class_="grid")
    facts = [
        (f"{which}: {what}", value)
        for which, run in (("baseline", baseline), ("candidate", candidate))
        for what, value in _facts(run)
    ]
    shown = element("section", element("h2", "Pictures"), pictures)
    runs = element("section", element("h2", "The two runs"), page.facts(tuple(facts)))
    return page.document(title, top, table, shown, runs)


def _facts(run: RunDrawn) -> list[tuple[str, str]]:
    first = run.measurements[0]
    versions = ", ".join(f"{name} {text}" for name, text in first.environment.versions)
    return [
        ("file", run.name),
        ("measured", first.when),
        ("machine", first_page.describe_machine(first.environment)),
        ("versions", versions or first_page.UNKNOWN),
    ]


def _ratios(compared: Comparison) -> Markup:
    """Draw each speed-up with its interval; 1 is no difference."""
    rows = compared.rows
    ends = [
        end for row in rows for end in (row.speed_up.ratio, row.speed_up.low, row.speed_up.high) if 0 < end < math.inf
    ]
    x = plot.axis([*ends, 1.0], start=_NAMES, end=plot.WIDTH - plot.RIGHT, log=True)
    bottom = plot.TOP + _ROW * len(rows)
    parts = [*plot.x_ticks(x, bottom, plot.TOP), plot.line(x.at(1), bottom, x.at(1), plot.TOP, "zero")]
    for index, row in enumerate(rows):
        middle, one = plot.TOP + _ROW * (index + 0.5), row.speed_up
        name = f"{row.label}, batch {row.batch}"
        parts.append(plot.label(_NAMES - 8, middle + 4, row.label, anchor="end"))
        if math.isfinite(one.high):
            parts.append(plot.line(x.at(one.low), middle, x.at(one.high), middle, f"whisker {_AFTER.color}"))
        data = {"label": row.label, "batch": row.batch, "ratio": one.ratio, "low": one.low, "high": one.high}
        parts.append(plot.mark(_AFTER, x.at(one.ratio), middle, f"{name}: {one.verdict}", hollow=one.noise, **data))
    parts.append(plot.label(x.end, bottom + 32, "speed-up over the baseline", "axis", anchor="end"))
    svg = plot.picture("Speed-ups", bottom + plot.BOTTOM, parts)
    note = "Right of 1 the candidate is faster. Bars are 95 % intervals; an outline is within noise."
    return plot.figure("ratios", "Speed-ups", note, svg)


def _latencies(compared: Comparison, baseline: RunDrawn, candidate: RunDrawn) -> Markup | None:
    rows = []
    for row in compared.rows:
        new = _of(candidate.measurements, row.label, row.batch)
        old = _of(baseline.measurements, row.speed_up.baseline, row.batch)
        pair = ((row.label, _BEFORE, old), (f"{row.label}, candidate", _AFTER, new))
        rows.append([(name, look, m) for name, look, m in pair if m is not None])
    note = "Grey is the baseline, colour the candidate."
    return spread.distributions([row for row in rows if row], note)


def _accuracies(baseline: RunDrawn, candidate: RunDrawn) -> Markup | None:
    runs = []
    for run, look, which in ((baseline, _BEFORE, "baseline"), (candidate, _AFTER, "candidate")):
        points = tradeoff.points_of(run.rows, {row.label: look for row in run.rows})
        runs.append([dataclasses.replace(p, name=f"{p.name}, {which}") for p in points])
    if not all(runs):
        return None
    note = "Each run has its own Pareto front, and 0 is its checkpoint. Outlines mark engines that may not be used."
    limits = tradeoff.limits_of((*baseline.rows, *candidate.rows))
    return tradeoff.draw_runs(runs, limits, note, [("baseline", _BEFORE), ("candidate", _AFTER)])


def _of(measurements: Sequence[Measurement], label: str, batch: int) -> Measurement | None:
    """Return the measurement of an engine, at this batch where there is one."""
    found = [m for m in measurements if m.label == label]
    return next((m for m in found if m.batch == batch), found[0] if found else None)
