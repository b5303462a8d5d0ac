"""What all pictures of the page share: axes, marks, the colours and shapes of engines, and the figure around them.

A picture is drawn at a width of `WIDTH` and scaled by the browser. Each mark carries the record's numbers in full in
``data-`` attributes, and the same as a sentence in ``aria-label``, which is also its tooltip.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy_kit.base.markup import Child, Markup, element, markup

WIDTH = 420
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 38
N_COLORS = 8
SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "bowtie")
_TICKS = 5
_MOST = 1e30  # what is larger stands at the end of its axis


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: values to places on the picture.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Place of `low` in px of the picture.
        end: Place of `high` in px; below `start` on an axis that points up.
        log: Whether the axis is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value; what lies outside, or is infinite, stands at the end, NaN at the start."""
        value = self.low if math.isnan(value) else min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return round values within the axis and their texts."""
        values = list[float]()
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) < _TICKS else (1,)
            values = self._within(step * 10.0**power for power in decades for step in steps)
        if len(values) < 3:  # also a short stretch of a logarithmic axis
            step = _round_step((self.high - self.low) / _TICKS)
            values = self._within(n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1))
        return [(value, number(value)) for value in values]

    def _within(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if self.low <= value * (1 + 1e-12) and value <= self.high]


def axis(values: Iterable[float], *, start: float, end: float, log: bool = False, zero: bool = False) -> Axis:
    """Return an axis on which all finite values have room.

    Args:
        values: What is to be shown.
        start: Place of the lowest value in px.
        end: Place of the highest value in px.
        log: Whether it is logarithmic; only where all values are positive.
        zero: Whether 0 is to be on it.
    """
    finite = [value for value in values if abs(value) < _MOST] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if log and low > 1 / _MOST:
        return Axis(low=low / 1.15, high=high * 1.15, start=start, end=end, log=True)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if low == high == 0:
        high = 1.0
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(
        low=low if zero and low == 0 else low - room,
        high=high if zero and high == 0 else high + room,
        start=start,
        end=end,
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour and shape of an engine in every picture: the colour is its variant's, the shape its engine's.

    Attributes:
        color: CSS class of the colour.
        shape: Shape of its marks.
    """

    color: str
    shape: str


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each label (``variant · engine``) its look; the same labels in the same order look the same."""
    parts = {label: label.partition(" · ") for label in labels}
    variants = list(dict.fromkeys(part[0] for part in parts.values()))
    engines = list(dict.fromkeys(part[2] for part in parts.values()))
    return {
        label: Look(color=f"c{variants.index(variant) % N_COLORS}", shape=SHAPES[engines.index(engine) % len(SHAPES)])
        for label, (variant, _, engine) in parts.items()
    }


def mark(look: Look, x: float, y: float, tip: str, *, hollow: bool = False, **data: object) -> Markup:
    """Draw a point that can be pointed at.

    Args:
        look: Colour and shape.
        x: Place in px.
        y: Place in px.
        tip: Its numbers as a sentence.
        hollow: Whether it is drawn as an outline.
        data: The record's numbers, for ``data-`` attributes.
    """
    hidden = "mark hollow" if hollow else "mark"
    return element(
        "path", d=symbol(look.shape, x, y), class_=f"{hidden} {look.color}", role="img", aria_label=tip, **exact(data)
    )


def area(tip: str, *, class_: str, name: str = "path", data: dict[str, object], **place: object) -> Markup:
    """Draw a bar, band or curve that can be pointed at; `data` holds the record's numbers, `place` where it is."""
    return element(name, class_=f"mark {class_}", role="img", aria_label=tip, **place, **exact(data))


def exact(data: dict[str, object]) -> dict[str, object]:
    """Return ``data-`` attributes in which a float has all of its digits."""
    return {
        f"data_{key}": repr(value) if isinstance(value, float) else value
        for key, value in data.items()
        if value is not None
    }


def symbol(shape: str, x: float, y: float, r: float = 5.0) -> str:
    """Return the path of a mark of radius `r` px around a place."""
    if shape == "circle":
        return f"M{x - r:.2f},{y:.2f}a{r},{r} 0 1,0 {2 * r},0a{r},{r} 0 1,0 {-2 * r},0Z"
    corners = {
        "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "hexagon": ((-1.1, 0), (-0.55, -1), (0.55, -1), (1.1, 0), (0.55, 1), (-0.55, 1)),
        "bowtie": ((-1.1, -1), (1.1, 1), (1.1, -1), (-1.1, 1)),
    }[shape]
    return path([(x + r * dx, y + r * dy) for dx, dy in corners]) + "Z"


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the path through places in px."""
    return "M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in points)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Draw a line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def label(x: float, y: float, text: str, class_: str = "tick", *, anchor: str = "start") -> Markup:
    """Write a text at a place."""
    return element("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def frame(x: Axis, y: Axis, x_title: str, y_title: str) -> Markup:
    """Draw grid, ticks and titles of two axes."""
    parts = []
    for value, text in y.ticks:
        parts += [line(x.start, y.at(value), x.end, y.at(value), "grid")]
        parts += [label(x.start - 6, y.at(value) + 4, text, anchor="end")]
    parts += x_ticks(x, y.start, y.end)
    parts += [label(x.end, y.start + 32, x_title, "axis", anchor="end"), label(2, y.end - 5, y_title, "axis")]
    return markup(parts)


def x_ticks(x: Axis, bottom: float, top: float) -> list[Markup]:
    """Draw grid lines and texts of an axis that runs to the right; texts that would touch are left out."""
    parts, free = [], -math.inf
    for value, text in x.ticks:
        place, half = x.at(value), 3.6 * len(text) + 2
        parts.append(line(place, bottom, place, top, "grid"))
        if place - half > free and place + half < WIDTH + 4:
            parts.append(label(place, bottom + 16, text, anchor="middle"))
            free = place + half
    return parts


def picture(title: str, height: float, *children: Child) -> Markup:
    """Return the SVG of a picture; arrow keys walk over its marks."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="group",
        aria_label=f"{title}: arrow keys read the marks",
        tabindex="0",
    )


def figure(name: str, title: str, note: Child, svg: Child, numbers: Child = None, legend: Child = None) -> Markup:
    """Frame a picture.

    Args:
        name: Name of the picture in the page's addresses.
        title: What it shows.
        note: How to read it.
        svg: The picture.
        numbers: The same as a table, for who cannot see it or wants the numbers.
        legend: What its colours and shapes mean.
    """
    return element(
        "figure",
        element("figcaption", element("h3", title), element("p", note)),
        svg,
        legend,
        element("details", element("summary", "Numbers"), numbers) if numbers else None,
        id=name,
        class_="chart",
    )


def legend(entries: Iterable[tuple[str, Look]], *, curves: bool = False) -> Markup:
    """List what the marks mean, each on a piece of its curve where the picture has curves."""
    width = 34 if curves else 14
    items = (
        element(
            "li",
            element(
                "svg",
                element("path", d=path([(0, 7), (width, 7)]), class_=f"curve {look.color}") if curves else None,
                mark_only(look, width / 2, 7),
                viewBox=f"0 0 {width} 14",
                class_="curves" if curves else None,
                aria_hidden="true",
            ),
            element("bdi", text),
        )
        for text, look in entries
    )
    return element("ul", *items, class_="legend")


def mark_only(look: Look, x: float, y: float, r: float = 5.0) -> Markup:
    """Draw a mark that says nothing by itself: of a legend, or on a curve."""
    return element("path", d=symbol(look.shape, x, y, r), class_=look.color)


def number(value: float) -> str:
    """Write a number with at most three significant digits, thousands and more by their letter."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            power = 1e3 if letter == "k" else limit
            return f"{value / power:.3g} {letter}"
    return f"{value:.4g}".replace("-", "−") if value else "0"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))
