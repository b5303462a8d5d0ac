"""Which classes lost, and which images changed their class."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence

from deploy_kit.base.markup import Markup, element
from deploy_kit.records.parity import ClassScore, Flip
from deploy_kit.records.results import EngineRow, ParityReport, Report, Thumbnail
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.plot import Look

_ROW, _NAMES, _CLASSES, _FLIPS = 24, 132, 14, 24
_JPEG, _MOST_BYTES = b"\xff\xd8\xff", 16_384


def lost(rows: tuple[EngineRow, ...], looks: dict[str, Look]) -> Markup | None:
    """Draw the classes whose score changed most, a mark an engine; None where no class changed."""
    scored = [
        (row.label, row.parity.scores) for row in rows if isinstance(row.parity, ParityReport) and row.parity.scores
    ]
    by_class: dict[int, list[tuple[str, ClassScore]]] = {}
    for label, scores in scored:
        for entry in scores.classes:
            by_class.setdefault(entry.index, []).append((label, entry))
    worst = sorted(by_class, key=lambda index: -max(abs(change(entry)) for _, entry in by_class[index]))[:_CLASSES]
    worst = [index for index in worst if any(change(entry) for _, entry in by_class[index])]
    if not worst:
        return None
    shown = [(index, by_class[index]) for index in sorted(worst, key=lambda i: min(change(e) for _, e in by_class[i]))]
    x = plot.axis(
        [change(e) for _, entries in shown for _, e in entries], start=_NAMES, end=plot.WIDTH - plot.RIGHT, zero=True
    )
    bottom = plot.TOP + _ROW * len(shown)
    parts = [*plot.x_ticks(x, bottom, plot.TOP), plot.line(x.at(0), bottom, x.at(0), plot.TOP, "zero")]
    for place, (_, entries) in enumerate(shown):
        middle = plot.TOP + _ROW * place + _ROW / 2
        parts.append(plot.label(_NAMES - 8, middle + 4, _short(name_of(entries[0][1])), anchor="end"))
        parts.append(plot.line(x.start, middle, x.end, middle, "base"))
        for label, entry in entries:
            tip = (
                f"{name_of(entry)}, {label}: {100 * entry.reference:.1f} % → {100 * entry.found:.1f} % "
                f"({change(entry):+.1f} points, {entry.n} images)"
            )
            parts.append(
                plot.mark(
                    looks[label], x.at(change(entry)), middle, tip, label=label, class_index=entry.index,
                    reference=entry.reference, found=entry.found,
                )
            )  # fmt: skip
    measure = scored[0][1].measure
    parts.append(plot.label(x.end, bottom + 32, f"change of {measure}, points", "axis", anchor="end"))
    numbers = tables.table(
        ("class", "engine", "images", "checkpoint", "engine's", "change"),
        [
            (name_of(e), label, str(e.n), f"{100 * e.reference:.1f} %", f"{100 * e.found:.1f} %", f"{change(e):+.1f}")
            for _, entries in shown
            for label, e in entries
        ],
    )
    note = f"The {len(shown)} of {len(by_class)} classes that changed most, worst first; left of 0 is a loss."
    svg = plot.picture("Which classes lost", bottom + plot.BOTTOM, parts)
    labels = dict.fromkeys(label for _, entries in shown for label, _ in entries)
    return plot.figure(
        "classes", "Which classes lost", note, svg, numbers, plot.legend([(label, looks[label]) for label in labels])
    )


def flipped(report: Report) -> Markup | None:
    """Show the images whose predicted class changed, those the checkpoint was surest of first; None without any."""
    checked = [(row.label, row.parity) for row in report.rows if isinstance(row.parity, ParityReport)]
    by_image: dict[int, list[tuple[str, Flip]]] = {}
    for label, parity in checked:
        for flip in parity.flips.worst if parity.flips else ():
            by_image.setdefault(flip.image, []).append((label, flip))
    if not by_image:
        return None
    names = {entry.index: entry.name for _, parity in checked if parity.scores for entry in parity.scores.classes}
    pictures = {one.image: one for one in report.thumbnails}
    surest = sorted(by_image.items(), key=lambda item: -item[1][0][1].margin)[:_FLIPS]
    cards = (_card(flips, names, pictures.get(image)) for image, flips in surest)
    note = (
        f"Up to ten for each engine; {len(surest)} of the {len(by_image)} known here. A margin is the largest output "
        "minus the second largest: a small one of the checkpoint's is a close call."
    )
    return element(
        "section",
        element("h3", "Images that changed their class"),
        element("p", note, class_="note"),
        element("ol", *cards, class_="cards"),
        id="flips",
    )


def change(entry: ClassScore) -> float:
    """Return how much better an engine is at a class than the checkpoint, in percentage points."""
    return 100 * (entry.found - entry.reference)


def name_of(entry: ClassScore) -> str:
    """Name a class: by its number where it has no name."""
    return entry.name or f"class {entry.index}"


def _card(flips: Sequence[tuple[str, Flip]], names: Mapping[int, str], thumbnail: Thumbnail | None) -> Markup:
    first = flips[0][1]
    label = None if first.label is None else element("p", "labelled ", element("bdi", _class(first.label, names)))
    found = (
        element(
            "li",
            element("bdi", label_),
            ": ",
            element("bdi", _class(flip.found, names)),
            _margin(flip.found_margin),
            data_image=flip.image,
            data_found=flip.found,
            data_margin=repr(flip.margin),
        )
        for label_, flip in flips
    )
    return element(
        "li",
        _image(thumbnail),
        element(
            "div",
            element("p", element("bdi", first.name), class_="file"),
            label,
            element("p", "checkpoint: ", element("bdi", _class(first.reference, names)), _margin(first.margin)),
            element("ul", *found),
        ),
    )


def _image(thumbnail: Thumbnail | None) -> Markup:
    """Embed a thumbnail, once it is known to be base64 of a small JPEG; an empty place otherwise."""
    try:
        data = base64.b64decode(thumbnail.data, validate=True) if thumbnail else b""
    except (binascii.Error, ValueError):
        data = b""
    if thumbnail is None or not data.startswith(_JPEG) or len(data) > _MOST_BYTES:
        return element("span", class_="no-image", aria_hidden="true")
    return element("img", src=f"data:image/jpeg;base64,{thumbnail.data}", alt=thumbnail.name)


def _margin(margin: float | None) -> str:
    return "" if margin is None else f" (margin {margin:.3g})" if math.isfinite(margin) else " (no finite output)"


def _class(index: int, names: Mapping[int, str]) -> str:
    return names.get(index) or f"class {index}"


def _short(name: str) -> str:
    return name if len(name) <= 19 else f"{name[:18]}…"
