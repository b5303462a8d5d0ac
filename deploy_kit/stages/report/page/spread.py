"""Latencies of engines as distributions over one axis, with their percentiles; and their course over the bench."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from deploy_kit.base.markup import Markup, markup
from deploy_kit.records.engine_table import NONE
from deploy_kit.records.measurements import Measurement
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.plot import Look

_ROW, _HILL, _BINS, _HEIGHT = 48, 24, 150, 240
_PERCENTS = (50, 90, 99)
_MARKS = 12  # along a curve; more would hide it

Timed = Sequence[tuple[str, Look, Measurement]]
"""(name, look, measurement) of what is drawn."""


def distributions(rows: Sequence[Timed], note: str = "") -> Markup | None:
    """Draw the latencies of one or more measurements in each row, from every sample; None where there are none.

    Args:
        rows: What is drawn over one another in each row; the first one's name stands above it.
        note: What to know beside how to read it.
    """
    timed = [one for row in rows for one in row]
    if not timed:
        return None
    shown = [(min(m.samples_ms), m.percentile_ms(99) or max(m.samples_ms)) for _, _, m in timed]
    low, high = min(low for low, _ in shown), max(high for _, high in shown)
    x = plot.axis([low, high], start=10, end=plot.WIDTH - plot.RIGHT, log=high > 6 * low > 0)
    bottom = plot.TOP + _ROW * len(rows)
    parts = plot.x_ticks(x, bottom, plot.TOP)
    for index, row in enumerate(rows):
        base = plot.TOP + _ROW * (index + 1) - 3
        parts += [
            plot.line(x.start, base, x.end, base, "base"),
            plot.label(x.start, base - _HILL - 8, row[0][0], "name"),
        ]
        parts += [_hill(name, look, measured, x, base) for name, look, measured in row]
        parts.append(
            plot.label(x.end, base - _HILL - 8, " → ".join(_median(m) for _, _, m in row), "value", anchor="end")
        )
    parts.append(plot.label(x.end, bottom + 32, "latency, ms", "axis", anchor="end"))
    cells = [
        (
            name,
            *(_ms(m.percentile_ms(p)) for p in _PERCENTS),
            _ms(max(m.samples_ms)),
            f"{len(m.samples_ms):,}",
            _beyond(m, x),
        )
        for name, _, m in timed
    ]
    numbers = tables.table(("engine", "p50", "p90", "p99", "longest", "samples", "beyond the axis"), cells)
    words = "Every sample counts; each has its own height. Ticks are p50, p90 and, from 1,000 samples on, p99."
    svg = plot.picture("Latency distributions", bottom + plot.BOTTOM, parts)
    return plot.figure("latency", "Latency distributions", f"{note} {words}".strip(), svg, numbers)


def course(timed: Timed) -> Markup | None:
    """Draw how each engine's latency moved from round to round; None for less than three rounds."""
    lines = [(name, look, medians) for name, look, m in timed if len(medians := _by_round(m)) > 2]
    if not lines:
        return None
    x = plot.axis(
        [s for _, _, medians in lines for s, _ in medians], start=plot.LEFT, end=plot.WIDTH - plot.RIGHT, zero=True
    )
    y = plot.axis(
        [p for _, _, medians in lines for _, p in medians], start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12, zero=True
    )
    parts = [plot.frame(x, y, "time since the first sample, s", "median of a round, % off the engine's own median")]
    for name, look, medians in lines:
        worst = max((p for _, p in medians), key=abs)
        tip = f"{name}: medians of {len(medians)} rounds, at most {worst:+.1f} % from its own"
        places = [(x.at(s), y.at(p)) for s, p in medians]
        parts.append(
            plot.area(tip, class_=f"curve {look.color}", d=plot.path(places), data={"label": name, "worst": worst})
        )
        parts += [plot.mark_only(look, left, top, 3.2) for left, top in places[:: math.ceil(len(places) / _MARKS)]]
    rows = [(name, *_extremes(medians)) for name, _, medians in lines]
    numbers = tables.table(("engine", "rounds", "fastest round", "slowest round"), rows)
    note = "Engines took turns: where the machine throttles or is disturbed, all of them bend at one time."
    svg = plot.picture("Latency over the bench", _HEIGHT, parts)
    return plot.figure(
        "course",
        "Latency over the bench",
        note,
        svg,
        numbers,
        plot.legend([(n, look) for n, look, _ in lines], curves=True),
    )


def _hill(name: str, look: Look, measured: Measurement, x: plot.Axis, base: float) -> Markup:
    """Draw one histogram with its percentiles."""
    samples = np.asarray(measured.samples_ms, np.float64)
    places = [x.at(value) for value in samples[samples <= x.high]]
    counts, edges = np.histogram(places, bins=_BINS, range=(x.start, x.end))
    tops = base - counts / max(counts.max(), 1) * _HILL
    seen = np.flatnonzero(counts)
    corners = list[tuple[float, float]]()
    for place in range(seen[0], seen[-1] + 1) if len(seen) else ():
        corners += [(float(edges[place]), float(tops[place])), (float(edges[place + 1]), float(tops[place]))]
    outline = [(corners[0][0], base), *corners, (corners[-1][0], base)] if corners else [(x.start, base)]
    known = {f"p{percent}": value for percent in _PERCENTS if (value := measured.percentile_ms(percent)) is not None}
    words = ", ".join(f"{key} {value:.3f} ms" for key, value in known.items()) or "too few samples for a median"
    tip = f"{name}: {words}; {len(samples):,} samples{'; INVALID' if measured.invalid else ''}"
    data = {"label": name, **known, "n": len(samples)}
    high = {"p50": 1.0, "p90": 0.7, "p99": 0.7}
    return markup(
        (
            plot.area(tip, class_=f"hill {look.color}", d=plot.path(outline) + "Z", data=data),
            *(
                plot.line(x.at(value), base - _HILL * high[key], x.at(value), base + 3, f"quantile {look.color}")
                for key, value in known.items()
            ),
        )
    )


def _median(measured: Measurement) -> str:
    invalid = " INVALID" if measured.invalid else ""
    return f"{_ms(measured.percentile_ms(50))}{invalid}{' emulated' if measured.emulated else ''}"


def _by_round(measured: Measurement) -> list[tuple[float, float]]:
    """Return (s since the first sample of the bench, % off the median over all) for each round."""
    if len(measured.starts_ms) != len(measured.samples_ms) or not measured.samples_ms:
        return []
    whole = statistics.median(measured.samples_ms)
    begins = (measured.starts_ms[begin] / 1e3 for begin in measured.rounds if begin < len(measured.starts_ms))
    return [
        (begin, 100 * (statistics.median(turn) / whole - 1))
        for begin, turn in zip(begins, measured.by_round, strict=False)
        if turn and whole > 0
    ]


def _extremes(medians: list[tuple[float, float]]) -> tuple[str, str, str]:
    values = [percent for _, percent in medians]
    return str(len(values)), f"{min(values):+.1f} %", f"{max(values):+.1f} %"


def _beyond(measured: Measurement, x: plot.Axis) -> str:
    return str(sum(sample > x.high for sample in measured.samples_ms))


def _ms(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f} ms"
