"""The roofline: what each engine reaches of the device's peak, over how many operations it does for each byte."""

from deploy_kit.base.markup import Markup
from deploy_kit.records.readings import Roof
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.spread import Timed

_HEIGHT = 280


def draw(timed: Timed) -> Markup | None:
    """Draw the engines whose roof is known; None where there are none."""
    known = [
        (name, look, m, m.roof, median)
        for name, look, m in timed
        if m.roof is not None and (median := m.percentile_ms(50)) and not m.emulated
    ]
    if not known:
        return None
    reached = {name: 2e3 * roof.macs / median for name, _, _, roof, median in known}
    roofs = list(dict.fromkeys((roof.precision, roof.peak_ops_s, roof.bandwidth_b_s) for _, _, _, roof, _ in known))
    intensities = [intensity(roof) for _, _, _, roof, _ in known]
    ridges = [peak / bandwidth for _, peak, bandwidth in roofs]
    x = plot.axis(
        [*intensities, *(0.5 * r for r in ridges), *(3 * r for r in ridges)],
        start=plot.LEFT,
        end=plot.WIDTH - plot.RIGHT,
        log=True,
    )
    y = plot.axis(
        [*reached.values(), *(peak for _, peak, _ in roofs)], start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12, log=True
    )
    parts = [plot.frame(x, y, "operations for each byte", "operations per second")]
    for precision, peak, bandwidth in roofs:
        corners = [
            (value, min(peak, bandwidth * value)) for value in (max(x.low, y.low / bandwidth), peak / bandwidth, x.high)
        ]
        tip = f"{precision} roof: {plot.number(peak)}OP/s, {plot.number(bandwidth)}B/s"
        data = {"precision": precision, "peak_ops_s": peak, "bandwidth_b_s": bandwidth}
        parts.append(plot.area(tip, class_="roof", d=plot.path([(x.at(a), y.at(b)) for a, b in corners]), data=data))
        parts.append(plot.label(x.end - 4, y.at(peak) - 5, precision, "note", anchor="end"))
    for name, look, m, roof, median in known:
        share = roof.share(median)
        tip = f"{name}: {plot.number(reached[name])}OP/s, {100 * share:.0f} % of its roof, bound by {roof.bound_by}"
        place = x.at(intensity(roof)), y.at(reached[name])
        parts.append(plot.mark(look, *place, tip, hollow=bool(m.invalid), label=name, share=share, macs=roof.macs))
    rows = [
        (
            name,
            f"{plot.number(reached[name])}OP/s",
            f"{100 * roof.share(median):.0f} %",
            roof.bound_by,
            f"{roof.basis}: {roof.source}",
        )
        for name, _, _, roof, median in known
    ]
    numbers = tables.table(("engine", "reached", "of its roof", "bound by", "basis"), rows)
    note = (
        f"An estimate for {known[0][3].device}: no engine can be above the line of its precision, but where caches "
        "save bytes. The slope is the memory's bandwidth, the flat part the peak of the products."
    )
    svg = plot.picture("Roofline", _HEIGHT, parts)
    return plot.figure(
        "roofline", "Roofline", note, svg, numbers, plot.legend([(name, look) for name, look, *_ in known])
    )


def intensity(roof: Roof) -> float:
    """Return operations for each byte that must be moved."""
    return 2 * roof.macs / roof.moved_bytes
