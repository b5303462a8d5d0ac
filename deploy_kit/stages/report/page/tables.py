"""Tables and sections of the page, from the same parts that Markdown draws."""

import re
from collections.abc import Iterable, Sequence

from deploy_kit.base.markup import Child, Markup, element, markup
from deploy_kit.stages.report.document import Section, Table

_CODE = re.compile(r"`([^`<>]+)`")
_STRONG = re.compile(r"\*\*([^*<>]+)\*\*")
_NUMBER = re.compile(r"[-+−]?\d")


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, class_: str = "") -> Markup:
    """Lay out a table that can be sorted by its headings; on a narrow screen it scrolls by itself."""
    head = element("tr", *(element("th", element("button", text, type="button"), scope="col") for text in headings))
    body = (element("tr", *_cells(headings, row)) for row in rows)
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
    return element("ul", *(element("li", sentence(remark)) for remark in block), class_="remarks")


def sentence(text: str) -> Markup:
    """Return a sentence as markup; `code` and **emphasis** are drawn so."""
    escaped = _CODE.sub(r"<code>\1</code>", markup(text))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", escaped))


def _cells(headings: Sequence[str], row: Sequence[Child]) -> list[Markup]:
    cells = list[Markup]()
    for heading, cell in zip(headings, row, strict=True):
        text = markup(cell)
        name = "td" if cells else "th"
        kind = "number" if name == "td" and _NUMBER.match(text) else None
        scope = "row" if name == "th" else None
        cells.append(element(name, element("bdi", text), data_heading=heading, class_=kind, scope=scope))
    return cells
