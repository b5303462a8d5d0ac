"""A report in a notebook: one table as in report.md, every text escaped."""

import dataclasses
from html.parser import HTMLParser

from report_records import everything, made, measurement, row

from deploy_kit.records.engine_table import HEADINGS, cells, summary
from deploy_kit.records.results import EngineRow, Report

HOSTILE = "<script>alert(\"x\")</script> & 'y'"


class Elements(HTMLParser):
    """The elements of a page and the texts in them, in order; refuses a tag that is not closed."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.texts = list[tuple[str, str]]()
        self.open = list[str]()
        self.feed(report._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.texts.append((tag, ""))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag, text = self.texts[-1]
        self.texts[-1] = (tag, text + data)

    def all(self, *tags: str) -> list[str]:
        """Return the texts of these elements."""
        return [text for tag, text in self.texts if tag in tags]


def test_the_table_has_the_rows_of_the_markdown() -> None:
    whole = everything()

    found = Elements(whole)

    assert found.all("table") == [""]
    assert tuple(found.all("th")) == HEADINGS
    assert tuple(found.all("td")) == tuple(cell for one in whole.rows for cell in cells(one))


def test_the_verdict_stands_above_the_table_and_the_remarks_below() -> None:
    whole = everything()

    found = Elements(whole)

    assert found.all("b") == [f"{whole.recipe}: {whole.checkpoint.title}"]
    assert found.all("br") == [summary(whole)] and "At least one engine is rejected." in summary(whole)
    assert tuple(found.all("li")) == whole.remarks


def test_hostile_texts_are_shown_and_not_run() -> None:
    engine = EngineRow(label=HOSTILE, artifact=None, failed=HOSTILE)
    report = dataclasses.replace(
        made(engine), recipe=HOSTILE, when=HOSTILE, version=HOSTILE, remarks=(HOSTILE, "</li></ul><img src=x>")
    )

    found = Elements(report)

    assert not {"script", "img"} & {tag for tag, _ in found.texts}
    assert found.all("td")[0] == HOSTILE
    assert found.all("td")[-1] == f"failed: {HOSTILE}"
    assert found.all("li") == list(report.remarks)
    assert found.all("b")[0].startswith(f"{HOSTILE}: ")
    assert HOSTILE in found.all("br")[0]


def test_a_latency_that_is_not_valid_is_marked() -> None:
    timed = dataclasses.replace(measurement("int8 · openvino", (1.5,) * 1000), invalid=("the clock fell",))

    found = Elements(made(row("int8", "openvino", measurement=timed)))

    assert "1.500 ms (INVALID)" in found.all("td")
    assert found.all("td")[-1] == "undecided: latency INVALID: the clock fell"


def test_a_report_without_remarks_has_no_list() -> None:
    assert Elements(dataclasses.replace(everything(), remarks=())).all("ul", "li") == []
