"""A report as HTML for notebooks: verdict, table of engines and remarks, every text escaped."""

from collections.abc import Iterable
from html import escape

from deploy_kit.records.engine_table import HEADINGS, cells, summary
from deploy_kit.records.results import Report


def report_html(report: Report) -> str:
    """Return a report as one HTML table, with the verdict above it and the remarks below."""
    rows = "".join(f"<tr>{_elements('td', cells(row))}</tr>" for row in report.rows)
    remarks = f"<ul>{_elements('li', report.remarks)}</ul>" if report.remarks else ""
    return (
        f"<p><b>{escape(report.recipe)}: {escape(report.checkpoint.title)}</b><br>{escape(summary(report))}</p>"
        f"<table><thead><tr>{_elements('th', HEADINGS)}</tr></thead><tbody>{rows}</tbody></table>{remarks}"
    )


def _elements(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
