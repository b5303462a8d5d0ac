"""Masks of checkpoint and engine beside each other, and where they differ, for the images that differ most."""

import base64
import binascii

from deploy_kit.base.markup import Markup, element
from deploy_kit.records.parity import MaskPicture
from deploy_kit.records.results import ParityReport, Report

_PNG, _MOST_BYTES = b"\x89PNG\r\n\x1a\n", 32 << 10


def differing(report: Report) -> Markup | None:
    """Show the masks that differ most for each engine; None where outputs are no masks."""
    checked = [(row.label, row.parity.task) for row in report.rows if isinstance(row.parity, ParityReport)]
    shown = [(label, task.pictures) for label, task in checked if task is not None and task.pictures]
    if not shown:
        return None
    note = (
        "Classes of the checkpoint, of the engine, and in white where they differ; images with the most such pixels "
        "first. Colors are PASCAL VOC's, by class number."
    )
    cards = (_card(label, one) for label, pictures in shown for one in pictures)
    return element(
        "section",
        element("h3", "Masks that differ most"),
        element("p", note, class_="note"),
        element("ol", *cards, class_="cards"),
        id="masks",
    )


def _card(label: str, one: MaskPicture) -> Markup:
    return element(
        "li",
        _image(one.reference, f"{one.name}: mask of the checkpoint"),
        _image(one.found, f"{one.name}: mask of {label}"),
        _image(one.difference, f"{one.name}: where they differ"),
        element(
            "div",
            element("p", element("bdi", one.name), class_="file"),
            element("p", element("bdi", label), f": {100 * one.differing:.2f} % of the pixels differ"),
        ),
        data_image=one.image,
        data_differing=repr(one.differing),
    )


def _image(data: str, text: str) -> Markup:
    """Embed a mask, once it is known to be base64 of a small PNG; an empty place otherwise."""
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw.startswith(_PNG) or len(raw) > _MOST_BYTES:
        return element("span", class_="no-image", aria_hidden="true")
    return element("img", src=f"data:image/png;base64,{data}", alt=text)
