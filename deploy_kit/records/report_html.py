"""A report as HTML for notebooks: verdict, facts, table of engines and remarks, from the parts that the page has."""

from collections.abc import Iterable

from deploy_kit.base.markup import Markup, element, markup
from deploy_kit.records import first_page
from deploy_kit.records.engine_table import HEADINGS, cells, summary
from deploy_kit.records.results import Report


def report_html(report: Report) -> str:
    """Return a report as HTML without styles: a notebook has its own."""
    title = element("b", f"{report.recipe}: {report.checkpoint.title}")
    rows = (element("tr", _elements("td", cells(row))) for row in report.rows)
    facts = (markup((element("dt", what), element("dd", value))) for what, value in first_page.facts(report))
    return markup(
        (
            element("p", title, element("br"), summary(report)),
            element("table", element("thead", element("tr", _elements("th", HEADINGS))), element("tbody", *rows)),
            element("ul", _elements("li", report.remarks)) if report.remarks else None,
            element("details", element("summary", "What was proved"), element("dl", *facts)),
        )
    )


def _elements(tag: str, texts: Iterable[str]) -> list[Markup]:
    return [element(tag, text) for text in texts]
