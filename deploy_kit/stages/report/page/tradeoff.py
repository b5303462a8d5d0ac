"""Accuracy against latency: one mark an engine, both intervals, and the Pareto front of those that may be used."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from deploy_kit.accuracy.paired import wilson_interval
from deploy_kit.base.markup import Markup, element, markup
from deploy_kit.measure import latency
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.results import EngineRow, ParityReport
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.plot import Look

_HEIGHT, _TITLE = 300, "Accuracy against latency"
_MOST_POINTS = 20  # a limit further down would press everything else into a line


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """An engine in both respects.

    Attributes:
        name: Label, with the batch where an engine was measured at several.
        look: Colour and shape.
        ms: (median, low, high) latency in ms; an end that is not known is 0 or ``inf``.
        points: (change, low, high) of the accuracy against the checkpoint in percentage points; above 0 is better.
        what: Measure of accuracy.
        barred: Why it is not one to be used; empty where it is.
        on_front: Whether no other engine that may be used is both as fast and as accurate.
    """

    name: str
    look: Look
    ms: tuple[float, float, float]
    points: tuple[float, float, float]
    what: str
    barred: str
    on_front: bool = False

    @property
    def sentence(self) -> str:
        """All of it in words."""
        front = "; on the Pareto front" if self.on_front else ""
        barred = f"; {self.barred}" if self.barred else ""
        return f"{self.name}: {span(self.ms, 'ms')}; {self.what} {span(self.points, 'points', '+')}{front}{barred}"


def draw(rows: tuple[EngineRow, ...], looks: dict[str, Look]) -> Markup | None:
    """Draw the engines that were both checked and measured; None where there are none."""
    points = points_of(rows, looks)
    if not points:
        return None
    note = (
        "Up is more accurate, left is faster; 0 is the checkpoint itself. Bars are 95 % intervals, the line is the "
        "Pareto front, and outlines mark engines that are rejected, undecided or not validly measured."
    )
    return draw_runs([points], limits_of(rows), note, [(p.name, p.look) for p in points])


def draw_runs(
    runs: Sequence[list[TradeoffPoint]], limits: Sequence[float], note: str, legend: Sequence[tuple[str, Look]]
) -> Markup:
    """Draw the points of one or more runs over one another, each with its Pareto front.

    Args:
        runs: Points of each run, at least one.
        limits: Changes in points that limits allow, below 0.
        note: How to read it.
        legend: What the looks mean.
    """
    points = [p for run in runs for p in run]
    ms = [value for p in points for value in p.ms if 0 < value < math.inf]
    wide = max(ms) > 8 * min(ms)
    x = plot.axis(ms, start=plot.LEFT, end=plot.WIDTH - plot.RIGHT, log=wide, zero=not wide)
    changes = [value for p in points for value in p.points]
    y = plot.axis([*changes, *limits, 0.0], start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12)
    parts = [plot.frame(x, y, "median latency, ms", f"{points[0].what}, points")]
    parts.append(plot.line(x.start, y.at(0), x.end, y.at(0), "zero"))
    for limit in limits:
        parts.append(plot.line(x.start, y.at(limit), x.end, y.at(limit), "limit"))
        parts.append(plot.label(x.end, y.at(limit) - 4, f"limit {plot.number(limit)}", "note", anchor="end"))
    for run in runs:
        front = sorted((p for p in run if p.on_front), key=lambda p: p.ms[0])
        if len(front) > 1:
            parts.append(element("path", d=plot.path(_steps(front, x, y)), class_="front"))
    parts += (_mark(p, x, y) for p in sorted(points, key=lambda p: p.on_front))
    numbers = tables.table(
        ("engine", "median latency", points[0].what, "barred", "front"),
        [
            (p.name, span(p.ms, "ms"), span(p.points, "points", "+"), p.barred, "yes" if p.on_front else "no")
            for p in points
        ],
    )
    svg = plot.picture(_TITLE, _HEIGHT, parts)
    return plot.figure("tradeoff", _TITLE, note, svg, numbers, plot.legend(legend))


def points_of(rows: tuple[EngineRow, ...], looks: dict[str, Look]) -> list[TradeoffPoint]:
    """List the engines that were checked and measured, with the Pareto front among them marked."""
    both = [
        (row, row.parity, row.measurement)
        for row in rows
        if isinstance(row.parity, ParityReport) and isinstance(row.measurement, Measurement)
    ]
    several = len({m.batch for _, _, m in both}) > 1
    found = []
    for row, parity, measured in both:
        what, change = accuracy(parity)
        found.append(
            TradeoffPoint(
                name=f"{row.label}, batch {measured.batch}" if several else row.label,
                look=looks[row.label],
                ms=median_ms(measured),
                points=change,
                what=what,
                barred=_barred(row, measured),
            )
        )
    free = [p for p in found if not p.barred]
    front = {p.name for p in free if not any(_beats(other, p) for other in free)}
    return [replace(p, on_front=p.name in front and not p.barred) for p in found]


def accuracy(parity: ParityReport) -> tuple[str, tuple[float, float, float]]:
    """Return what an engine's accuracy is told by, and its change against the checkpoint with its 95 % interval."""
    if parity.drop is not None:
        drop = parity.drop
        return f"{drop.what} change", (0.0 - drop.points, 0.0 - drop.high, 0.0 - drop.low)
    if parity.drop_pp is not None and parity.drop_pp_interval is not None:  # as reports of version 0.1 have it
        change, half = 0.0 - parity.drop_pp, parity.drop_pp_interval
        return "top-1 change", (change, change - half, change + half)
    low, high = wilson_interval(round(parity.agreement * parity.n), parity.n)
    return "top-1 agreement − 100", (100 * parity.agreement - 100, 100 * low - 100, 100 * high - 100)


def median_ms(measured: Measurement) -> tuple[float, float, float]:
    """Return the median latency in ms and its 95 % interval over the rounds; 0 and ``inf`` for too few of them."""
    median = statistics.median(measured.samples_ms)
    low, high = latency.median_interval([statistics.median(turn) for turn in measured.by_round if turn])
    return median, low, high


def span(values: tuple[float, float, float], unit: str, sign: str = "") -> str:
    """Write a number with its interval, where it has one."""
    middle, low, high = (f"{value:{sign}.4g}" if sign == "" else f"{value:{sign}.2f}" for value in values)
    interval = f" [{low}, {high}]" if math.isfinite(values[2]) else ""
    return f"{middle}{interval} {unit}"


def limits_of(rows: Iterable[EngineRow]) -> list[float]:
    """List the changes in points that limits allow, as far as they fit a picture."""
    limits = {row.parity.limits.max_drop for row in rows if isinstance(row.parity, ParityReport)}
    return sorted(-limit for limit in limits if limit is not None and limit <= _MOST_POINTS)


def _mark(p: TradeoffPoint, x: plot.Axis, y: plot.Axis) -> Markup:
    """Draw a point with its intervals."""
    left, top = x.at(p.ms[0]), y.at(p.points[0])
    whisker = f"whisker {p.look.color}"
    across = plot.line(x.at(p.ms[1]), top, x.at(p.ms[2]), top, whisker) if p.ms[2] < math.inf else None
    data = {"label": p.name, "ms": p.ms[0], "points": p.points[0], "low": p.points[1], "high": p.points[2]}
    point = plot.mark(p.look, left, top, p.sentence, hollow=bool(p.barred), front=p.on_front or None, **data)
    return markup((across, plot.line(left, y.at(p.points[1]), left, y.at(p.points[2]), whisker), point))


def _barred(row: EngineRow, measured: Measurement) -> str:
    if measured.emulated:
        return measured.emulated
    if measured.invalid:
        return "latency INVALID"
    return "" if row.failed or row.judged is None or row.judged.word == "accepted" else row.judged.word


def _beats(one: TradeoffPoint, other: TradeoffPoint) -> bool:
    """Return whether `one` is at least as good in both respects and better in one."""
    ours, theirs = (one.ms[0], -one.points[0]), (other.ms[0], -other.points[0])
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _steps(front: list[TradeoffPoint], x: plot.Axis, y: plot.Axis) -> list[tuple[float, float]]:
    corners = list[tuple[float, float]]()
    for p in front:
        here = (x.at(p.ms[0]), y.at(p.points[0]))
        corners += [(here[0], corners[-1][1]), here] if corners else [here]
    return corners
