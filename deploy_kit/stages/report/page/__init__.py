"""``report.html``: one file that opens without a network, drawn from the record alone.

It loads nothing: style and script are inside and named by their hash in the page's content security policy, so that
no text of a file can become either.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from deploy_kit.base.markup import Child, Markup, element, markup
from deploy_kit.records import first_page
from deploy_kit.records.engine_table import HEADINGS, NONE, cells, summary
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.results import EngineRow, Report
from deploy_kit.stages.report import content
from deploy_kit.stages.report.page import (
    classes,
    conditions,
    layers,
    mask_pictures,
    passes,
    plot,
    roofline,
    slimming,
    spread,
    tables,
    tradeoff,
)

_MARK = re.compile(r"(.*?) \((INVALID|emulated.*|measured apart.*)\)")
_GENERATOR = element("meta", name_="generator", content="deploykit")
_MONOSPACE = ("sha256", "repeat with")
_ICONS = {"accepted": "✓", "rejected": "✕", "undecided": "?", "failed": "!"}


def page(report: Report) -> str:
    """Return the page of a report."""
    looks = plot.looks(row.label for row in report.rows)
    word, found = _verdict(report), report.recommendation
    winner = _winner(report, found.winner) if found and found.winner else None
    top = element(
        "header",
        element("p", "deploykit report", class_="kicker"),
        element("h1", element("bdi", content.title(report))),
        element("p", chip(word), " ", summary(report), winner, class_="verdict"),
    )
    meaning = element("p", content.legend(report), class_="note")
    first = element(
        "div",
        element("section", element("h2", "What was proved"), facts(first_page.facts(report)), aria_label="facts"),
        element(
            "section", element("h2", "Engines"), engines(report), meaning, *_recommended(report), aria_label="engines"
        ),
        class_="first",
    )
    reasons = _reasons(report)
    notes = element("section", element("h2", "What to know"), tables.remarks(reasons)) if reasons else None
    files = element(
        "section",
        element("h2", "Files"),
        tables.table(first_page.FILE_HEADINGS, first_page.files(report), class_="files"),
    )
    drawn = pictures(report, looks)
    shown = element("section", element("h2", "Pictures"), element("div", *drawn, class_="grid")) if drawn else None
    more = element("section", element("h2", "Details"), *map(tables.section, content.details(report)))
    flips = markup((classes.flipped(report), mask_pictures.differing(report)))
    return document(content.title(report), top, first, notes, files, shown, flips, more)


def pictures(report: Report, looks: dict[str, plot.Look]) -> list[Markup]:
    """Draw every picture that the report has the numbers for."""
    timed = timings(report.rows, looks)
    times = (layers.times(name, measured, number) for number, (name, _, measured) in enumerate(timed))
    found = (
        tradeoff.draw(report.rows, looks),
        *map(slimming.draw, report.slim_searches),
        spread.distributions([[one] for one in timed]),
        *times,
        layers.depth(report.differences),
        classes.lost(report.rows, looks),
        passes.waterfall(report.passes),
        roofline.draw(timed),
        spread.course(timed),
        *conditions.draw(timed),
    )
    return [one for one in found if one is not None]


def timings(rows: Iterable[EngineRow], looks: dict[str, plot.Look]) -> list[tuple[str, plot.Look, Measurement]]:
    """List what was measured, with the batch in the name where an engine was measured at several."""
    timed = [
        (row.label, row.measurement)
        for row in rows
        if isinstance(row.measurement, Measurement) and row.measurement.samples_ms
    ]
    several = len({measured.batch for _, measured in timed}) > 1
    return [
        (f"{label}, batch {measured.batch}" if several else label, looks[label], measured) for label, measured in timed
    ]


def _winner(report: Report, label: str) -> Markup:
    """Name the recommended engine, with what a reader asks of it first: loss, speed and file."""
    row = next((row for row in report.rows if row.label == label), None)
    texts = {} if row is None else dict(zip(HEADINGS, cells(row), strict=True))
    against = f" against {row.speed_up.baseline}" if row is not None and row.speed_up else ""
    units = {"drop": " points", "speed-up": against}
    told = ", ".join(f"{what} {texts[what]}{unit}" for what, unit in units.items() if texts.get(what, NONE) != NONE)
    artifact = None if row is None else row.artifact
    digests = () if artifact is None else (f"sha256 {first_page.parts(report, artifact)[0][2][:12]}…",)
    file = ", ".join(filter(None, (dict(report.delivered).get(label), *digests)))
    return markup((" Recommended: ", element("strong", label), f" ({file})" if file else "", told and f": {told}", "."))


def engines(report: Report) -> Markup:
    """Lay the engines out with their verdicts, each with its file where it was delivered."""
    first = ("artifact", "verdict", "drop", "speed-up", "p50", "size")
    headings = (*first, *(heading for heading in HEADINGS if heading not in first))
    drawn, delivered = [], dict(report.delivered)
    for row in report.rows:
        texts = {h: _marked(text) for h, text in zip(HEADINGS, cells(row), strict=True)}
        if row.artifact is not None:
            file = element("small", delivered[row.label]) if row.label in delivered else None
            parts = first_page.parts(report, row.artifact)
            digests = (
                element("small", f"sha256{f' of {ending}' if len(parts) > 1 else ''} {digest[:12]}…")
                for ending, _, digest in parts
            )
            texts["artifact"] = markup((texts["artifact"], file, *digests))
        drawn.append([chip(_word(row)) if heading == "verdict" else texts[heading] for heading in headings])
    return tables.table(headings, drawn, class_="engines")


def facts(pairs: first_page.Facts) -> Markup:
    """Lay facts out as a list of terms."""
    items = (
        element("div", element("dt", what), element("dd", element("bdi", value), class_=_kind(what)))
        for what, value in pairs
    )
    return element("dl", *items, class_="facts")


def chip(word: str) -> Markup:
    """Draw the word of a verdict with its sign and colour."""
    return element(
        "strong",
        element("span", _ICONS.get(word, "–"), aria_hidden="true"),
        f" {word}",
        class_=f"chip {word.replace(' ', '-')}",
    )


def document(title: str, *body: Child) -> str:
    """Return a whole page.

    Args:
        title: Title of the window.
        body: What is on it.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        _GENERATOR,
        element("title", title),
        element("style", Markup(style)),
    )
    whole = element("html", head, element("body", element("main", *body), element("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _recommended(report: Report) -> list[Markup]:
    part = content.recommendation(report)
    return [] if part.empty else [element("h2", part.title), *tables.blocks(part)]


def is_page(path: Path) -> bool:
    """Return whether a file begins as the pages of `document` do."""
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(4096)


def _verdict(report: Report) -> str:
    return report.verdict if any(row.judged is not None for row in report.rows) else "not checked"


def _word(row: EngineRow) -> str:
    return row.judged.word if row.judged is not None else row.verdict.partition(":")[0]


def _reasons(report: Report) -> list[str]:
    """List why engines are not accepted where the recommendation does not say it, and the remarks that say more."""
    said = {(loser.label, loser.why) for loser in report.recommendation.losers} if report.recommendation else set()
    reasons = [
        f"{row.label}: {row.verdict}"
        for row in report.rows
        if _word(row) != "accepted" and (row.label, row.verdict) not in said
    ]
    told = [why for row in report.rows if isinstance(row.measurement, Measurement) for why in row.measurement.invalid]
    return [*reasons, *(remark for remark in report.remarks if not any(why in remark for why in told))]


def _marked(text: str) -> Markup:
    """Set a number's interval, and the mark of one that must not be used, on lines of their own."""
    number, mark = (found[1], found[2]) if (found := _MARK.fullmatch(text)) else (text, "")
    number, _, interval = number.partition(" [")
    below = element("span", f" [{interval}", class_="interval") if interval else None
    return markup((number, below, element("span", mark, class_="invalid") if mark else None))


def _kind(what: str) -> str | None:
    return "mono" if what.endswith(_MONOSPACE) else None


@functools.cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
