"""Tables and sections of the page, from the same parts that Markdown draws."""

import re
from collections.abc import Iterable, Sequence

from deploy_kit.base.markup import Child, Markup, element, markup
from deploy_kit.records.engine_table import NONE
from deploy_kit.stages.report.document import Section, Table

_CODE = re.compile(r"`([^`<>]+)`")
_STRONG = re.compile(r"\*\*([^*<>]+)\*\*")
# Words of scripts that run from right to left; beside a number or an arrow they would change places with it.
_RIGHT_TO_LEFT = re.compile(
    r"([\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+(?: [\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)*)"
)
_NUMBER = re.compile(r"[-+−]?[\d.,]+(e[-+]\d+)? ?(%|×|ms|s|MB|kB|dB|M|G|k|GOP/s|TOP/s)?( \[.*\])?( ms| points)?(<|$)")


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, class_: str = "") -> Markup:
    """Lay out a table that can be sorted by its headings; on a narrow screen it scrolls by itself."""
    lines = [[markup(cell) for cell in row] for row in rows]
    kinds = [_kind(column) for column in zip(*lines, strict=True)] or [None] * len(headings)
    head = element("tr", *(_heading(text, kind) for text, kind in zip(headings, kinds, strict=True)))
    body = (element("tr", *map(_cell, headings, line, kinds)) for line in lines)
    drawn = element("table", element("thead", head), element("tbody", *body), class_=class_ or None)
    return element("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=f"table: {headings[0]}")


def section(part: Section) -> Markup:
    """Draw a section, closed until it is asked for."""
    return element("details", element("summary", element("h3", part.title)), *blocks(part), class_="section")


def blocks(part: Section) -> list[Markup]:
    """Draw the blocks of a section without its title."""
    return [_block(block) for block in part.blocks if block]


def _block(block: str | Table | tuple[str, ...]) -> Markup:
    if isinstance(block, Table):
        return table(block.headings, [[sentence(cell) for cell in row] for row in block.rows])
    if isinstance(block, str):
        return element("p", sentence(block))
    return remarks(block)


def remarks(texts: Iterable[str]) -> Markup:
    """Draw a list of sentences."""
    return element("ul", *(element("li", sentence(text)) for text in texts), class_="remarks")


def sentence(text: str) -> Markup:
    """Return a sentence as markup; `code` and **emphasis** are drawn so, and names in it keep their place."""
    escaped = _CODE.sub(r"<code>\1</code>", markup(text))
    isolated = _RIGHT_TO_LEFT.sub(r"<bdi>\1</bdi>", escaped)
    return Markup(_STRONG.sub(r"<strong>\1</strong>", isolated))


def _kind(column: Sequence[Markup]) -> str | None:
    """Return ``number`` for a column in which every cell is a number or says that there is none."""
    texts = [text for text in column if text not in ("", NONE)]
    return "number" if texts and all(_NUMBER.match(text) for text in texts) else None


def _heading(text: str, kind: str | None) -> Markup:
    return element("th", element("button", text, type="button"), scope="col", class_=kind)


def _cell(heading: str, text: Markup, kind: str | None) -> Markup:
    return element("td", element("bdi", text), data_heading=heading, class_=kind)
