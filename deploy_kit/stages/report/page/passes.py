"""What each graph pass took away: multiply-accumulates and nodes, one under the other from the exported graph on."""

from deploy_kit.base.markup import Markup
from deploy_kit.records.results import PassRow
from deploy_kit.stages.report.page import plot, tables

_ROW, _NAMES, _GAP = 22, 138, 30


def waterfall(passes: tuple[PassRow, ...]) -> Markup | None:
    """Draw the passes that fired; None where none did."""
    fired = [row for row in passes if row.fired]
    if not fired:
        return None
    middle = (_NAMES + plot.WIDTH) / 2
    macs = plot.axis([max(r.macs_before for r in fired)], start=_NAMES, end=middle - _GAP / 2, zero=True)
    nodes = plot.axis(
        [max(r.nodes_before for r in fired)], start=middle + _GAP / 2, end=plot.WIDTH - plot.RIGHT, zero=True
    )
    top = plot.TOP + 14
    bottom = top + _ROW * (len(fired) + 1)
    parts = [plot.label(_NAMES, plot.TOP, "MACs per image", "axis"), plot.label(nodes.start, plot.TOP, "nodes", "axis")]
    steps = [("exported", 0, fired[0].macs_before, 0, fired[0].nodes_before), *map(_step, fired)]
    for index, (name, macs_to, macs_from, nodes_to, nodes_from) in enumerate(steps):
        y = top + _ROW * index
        parts.append(plot.label(_NAMES - 6, y + 13, name, anchor="end"))
        for scale, what, low, high in ((macs, "MACs", macs_to, macs_from), (nodes, "nodes", nodes_to, nodes_from)):
            change = f"{high:,} {what}" if index == 0 else f"{high:,} → {low:,} {what}"
            kind = "whole" if index == 0 else "less" if low < high else "more" if low > high else "same"
            left, right = sorted((scale.at(low), scale.at(high)))
            data = {"name": name, "what": what, "before": high, "after": low}
            parts.append(
                plot.area(f"{name}: {change}", name="rect", class_=f"bar {kind}", data=data, x=left, y=float(y + 4),
                          width=max(right - left, 1.5), height=float(_ROW - 8))
            )  # fmt: skip
    last = fired[-1]
    parts += [
        plot.label(macs.start, bottom + 14, f"left: {plot.number(last.macs_after)}", "value"),
        plot.label(nodes.start, bottom + 14, f"left: {last.nodes_after:,}", "value"),
    ]
    rows = [
        (
            r.name,
            str(r.fired),
            f"{r.macs_before:,}",
            f"{r.macs_after:,}",
            f"{r.nodes_before:,}",
            f"{r.nodes_after:,}",
            f"{r.max_difference:.2g}",
        )
        for r in passes
    ]
    numbers = tables.table(("pass", "places", "MACs before", "after", "nodes before", "after", "max difference"), rows)
    note = "Each pass from right to left takes its part away; what it leaves is where the next one begins."
    svg = plot.picture("What the passes took away", bottom + 24, parts)
    return plot.figure("passes", "What the passes took away", note, svg, numbers)


def _step(row: PassRow) -> tuple[str, int, int, int, int]:
    return row.name, row.macs_after, row.macs_before, row.nodes_after, row.nodes_before
