"""What the machine did while engines were timed: clock, temperature and load, before, within and after their turns."""

from deploy_kit.base.markup import Markup
from deploy_kit.records.readings import QuantityCourse
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.spread import Timed

_ROW = 26


def draw(timed: Timed) -> list[Markup]:
    """Draw a picture for each quantity that was read."""
    courses: dict[str, list[tuple[str, plot.Look, QuantityCourse]]] = {}
    for name, look, measured in timed:
        for course in measured.conditions.courses if measured.conditions else ():
            courses.setdefault(course.what, []).append((name, look, course))
    return [_figure(number, what, found) for number, (what, found) in enumerate(courses.items())]


def _figure(number: int, what: str, courses: list[tuple[str, plot.Look, QuantityCourse]]) -> Markup:
    unit = courses[0][2].unit
    values = [value for _, _, c in courses for value in (c.before, c.low, c.high, c.after)]
    x = plot.axis(values, start=10, end=plot.WIDTH - plot.RIGHT, zero=min(values) < 0.5 * max(values))
    bottom = plot.TOP + 2 * _ROW * len(courses) / 1.3
    parts = plot.x_ticks(x, bottom, plot.TOP)
    step = (bottom - plot.TOP) / len(courses)
    for index, (name, look, c) in enumerate(courses):
        y = plot.TOP + step * index
        tip = (
            f"{name}: {c.before:g} before, {c.low:g} to {c.high:g} within its turns, {c.after:g} after {unit}".rstrip()
        )
        data = {"label": name, "before": c.before, "low": c.low, "high": c.high, "after": c.after}
        left, right = x.at(c.low), x.at(c.high)
        parts.append(plot.label(x.start, y + 13, name, "name"))
        parts.append(
            plot.area(
                tip, name="rect", class_=f"bar {look.color}", data=data,
                x=left, y=y + 19, width=max(right - left, 3.0), height=8.0,
            )
        )  # fmt: skip
        parts += [plot.line(x.at(v), y + 16, x.at(v), y + 30, f"quantile {look.color}") for v in (c.before, c.after)]
    parts.append(plot.label(x.end, bottom + 32, unit or what, "axis", anchor="end"))
    title = what[:1].upper() + what[1:]
    rows = [(name, *(f"{value:.6g}" for value in (c.before, c.low, c.high, c.after))) for name, _, c in courses]
    numbers = tables.table(("engine", "before", "lowest", "highest", "after"), rows)
    svg = plot.picture(title, bottom + plot.BOTTOM, parts)
    note = "Bars reach from the lowest to the highest value within an engine's turns; ticks are before and after."
    return plot.figure(f"machine-{number}", title, note, svg, numbers)
