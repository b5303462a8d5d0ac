"""Where the time of an engine goes by region and kind of operation, and how its error grows with depth."""

import math
from collections.abc import Sequence

from deploy_kit.base.markup import Markup, element
from deploy_kit.records.difference import NetworkDifference
from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Measurement
from deploy_kit.stages.report import layer_breakdown
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.plot import Look

_ROW, _HEIGHT, _NAMES = 24, 260, 92


def times(name: str, measured: Measurement, number: int) -> Markup | None:
    """Draw one engine's profile: a bar a region, stacked by kind; None where it has no profile."""
    profile = measured.profile
    if profile is None or not profile.layers:
        return None
    regions = [(region, _stack(profile, region)) for region in profile.regions]
    x = plot.axis([sum(ms for _, ms in stack) for _, stack in regions], start=_NAMES, end=plot.WIDTH - 52, zero=True)
    bottom = plot.TOP + _ROW * len(regions)
    parts = plot.x_ticks(x, bottom, plot.TOP)
    colors: dict[str, str] = {kind: f"c{index % plot.N_COLORS}" for index, kind in enumerate(profile.kinds)}
    for index, (region, stack) in enumerate(regions):
        top, begin = plot.TOP + _ROW * index + 4, 0.0
        parts.append(plot.label(_NAMES - 6, top + 12, region, anchor="end"))
        for kind, ms in stack:
            place, width = x.at(begin), x.at(begin + ms) - x.at(begin)
            tip = f"{region}, {kind}: {ms:.3f} ms, {ms / profile.total_ms:.1%}"
            data = {"region": region, "kind": kind, "ms": ms}
            parts.append(
                plot.area(
                    tip,
                    name="rect",
                    class_=f"bar {colors[kind]}",
                    data=data,
                    x=place,
                    y=float(top),
                    width=width,
                    height=float(_ROW - 8),
                )
            )
            begin += ms
        parts.append(plot.label(x.at(begin) + 5, top + 12, f"{begin / profile.total_ms:.0%}", "value"))
    parts.append(plot.label(x.end, bottom + 32, "median ms a run", "axis", anchor="end"))
    headings, rows = layer_breakdown.regions(profile)
    note = f"{layer_breakdown.sentence(measured, profile)}. Profiling slows a run: read the shares."
    kinds = [(kind, Look(color=color, shape="square")) for kind, color in colors.items()]
    svg = plot.picture(f"Where the time goes: {name}", bottom + plot.BOTTOM, parts)
    return plot.figure(
        f"layers-{number}", f"Where the time goes: {name}", note, svg, tables.table(headings, rows), plot.legend(kinds)
    )


def depth(differences: Sequence[NetworkDifference]) -> Markup | None:
    """Draw the SQNR along the layers, one curve an artifact; None where nobody looked."""
    drawn = [one for one in differences if one.points]
    if not drawn:
        return None
    order = list(dict.fromkeys(point.point for one in drawn for point in one.points))
    finite = [point.sqnr_db for one in drawn for point in one.points if math.isfinite(point.sqnr_db)]
    x = plot.Axis(low=0, high=max(len(order) - 1, 1), start=plot.LEFT, end=plot.WIDTH - plot.RIGHT)
    y = plot.axis(finite, start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12)
    parts = list[Markup]()
    for value, text in y.ticks:
        parts += [
            plot.line(x.start, y.at(value), x.end, y.at(value), "grid"),
            plot.label(x.start - 6, y.at(value) + 4, text, anchor="end"),
        ]
    parts += [
        plot.label(x.end, y.start + 32, "points in order of computation", "axis", anchor="end"),
        plot.label(2, y.end - 5, "SQNR, dB", "axis"),
    ]
    parts += _blocks(order, x, y)
    looks = []
    for number, one in enumerate(drawn):
        look = Look(color=f"c{number % plot.N_COLORS}", shape=plot.SHAPES[number % len(plot.SHAPES)])
        looks.append((f"{one.second} against {one.first}", look))
        places = [(x.at(order.index(point.point)), y.at(point.sqnr_db)) for point in one.points]
        parts.append(element("path", d=plot.path(places), class_=f"curve {look.color}"))
        for point, (left, top) in zip(one.points, places, strict=True):
            tip = f"{one.second}, {point.point}: SQNR {point.sqnr_db:.1f} dB, {point.expected_db:.1f} expected"
            parts.append(plot.mark(look, left, top, tip, point=point.point, sqnr_db=point.sqnr_db))
    rows = [
        (one.second, p.point, f"{p.sqnr_db:.1f} dB", f"{p.expected_db:.1f} dB", f"{p.max_error:.3g}")
        for one in drawn
        for p in one.points
    ]
    numbers = tables.table(("artifact", "point", "SQNR", "expected", "largest error"), rows)
    note = f"{drawn[0].n} images ({drawn[0].images}). {' '.join(one.verdict for one in drawn)}"
    svg = plot.picture("Error by depth", _HEIGHT, parts)
    return plot.figure("depth", "Error by depth", note, svg, numbers, plot.legend(looks))


def _stack(profile: LayerProfile, region: str) -> list[tuple[str, float]]:
    inside = [layer for layer in profile.layers if layer.region == region]
    by_kind = [(kind, sum(layer.median_ms for layer in inside if layer.kind == kind)) for kind in profile.kinds]
    return [(kind, ms) for kind, ms in by_kind if ms]


def _blocks(order: list[str], x: plot.Axis, y: plot.Axis) -> list[Markup]:
    """Mark where a dense block ends."""
    parts = []
    for index, point in enumerate(order):
        if point.startswith("transition") or point in ("norm5", "features.norm5"):
            place = x.at(index)
            parts += [
                plot.line(place, y.start, place, y.end, "grid"),
                plot.label(place, y.start + 16, point[:12], anchor="middle"),
            ]
    return parts
