"""Two runs over one another: the ratios of the comparison, the samples of both, accuracies where both have them."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from command_line import deploykit
from page_elements import Page
from page_records import ENGINES, page_report

from deploy_kit.analysis import compare
from deploy_kit.records import codec
from deploy_kit.records.measurements import Bench, Measurement
from deploy_kit.records.results import Report
from deploy_kit.stages import report
from deploy_kit.stages.report.page.comparison import RunDrawn, comparison_page

pytestmark = pytest.mark.slow


def slower(of: Report, factor: float) -> Report:
    rows = tuple(
        dataclasses.replace(
            row, measurement=dataclasses.replace(timed, samples_ms=tuple(factor * ms for ms in timed.samples_ms))
        )
        for row in of.rows
        if isinstance(timed := row.measurement, Measurement)
    )
    return dataclasses.replace(of, rows=rows)


def run_of(name: str, of: Report, *, with_rows: bool = True) -> RunDrawn:
    timed = tuple(row.measurement for row in of.rows if isinstance(row.measurement, Measurement))
    return RunDrawn(name=name, measurements=timed, rows=of.rows if with_rows else ())


def drawn(old: RunDrawn, new: RunDrawn) -> Page:
    compared = compare.compare_runs(Bench(measurements=old.measurements), Bench(measurements=new.measurements))
    return Page(comparison_page(compared, old, new))


def test_each_ratio_stands_with_its_interval() -> None:
    old, new = run_of("a.json", page_report()), run_of("b.json", slower(page_report(), 1.1))
    compared = compare.compare_runs(Bench(measurements=old.measurements), Bench(measurements=new.measurements))

    found = {mark["label"]: mark for mark in drawn(old, new).marks("ratios")}

    assert found.keys() == ENGINES.keys()
    for row in compared.rows:
        ends = [float(found[row.label][key]) for key in ("ratio", "low", "high")]
        assert ends == [row.speed_up.ratio, row.speed_up.low, row.speed_up.high]
        assert math.isclose(row.speed_up.ratio, 1 / 1.1, rel_tol=1e-9)


def test_the_samples_of_both_runs_are_drawn_in_one_row() -> None:
    old, new = run_of("a.json", page_report()), run_of("b.json", slower(page_report(), 1.1))

    found = {mark["label"]: float(mark["p50"]) for mark in drawn(old, new).marks("latency")}

    for label in ENGINES:
        assert math.isclose(found[f"{label}, candidate"], 1.1 * found[label])


def test_accuracies_are_drawn_where_both_runs_were_checked() -> None:
    old, new = run_of("a.json", page_report()), run_of("b.json", page_report())

    assert len(drawn(old, new).marks("tradeoff")) == 2 * len(ENGINES)
    assert drawn(old, dataclasses.replace(new, rows=())).marks("tradeoff") == []


def test_names_of_files_are_texts() -> None:
    name = "</title><script>alert(1)</script>.json"

    found = drawn(run_of(name, page_report()), run_of("b.json", page_report()))

    assert [tag for tag, _ in found.found].count("script") == 1
    assert f"b.json against {name}" in found.texts


def test_compare_writes_the_page_of_a_report_and_a_bench(tmp_path: Path) -> None:
    report.run(page_report(), tmp_path / "old")
    timed = run_of("", slower(page_report(), 1.2)).measurements
    (tmp_path / "new.json").write_text(json.dumps(codec.to_json(Bench(measurements=timed))))

    said = deploykit(
        "compare", tmp_path / "old" / "report.json", tmp_path / "new.json", "--html", tmp_path / "both.html"
    )
    again = deploykit(
        "compare", tmp_path / "old" / "report.json", tmp_path / "new.json", "--html", tmp_path / "both.html"
    )

    assert (said.code, again.code) == (0, 0)
    assert len(Page((tmp_path / "both.html").read_text()).marks("ratios")) == len(ENGINES)


def test_a_run_that_is_compared_with_itself_is_said_to_be(tmp_path: Path) -> None:
    record = report.run(page_report(), tmp_path).with_suffix(".json")
    copy = tmp_path / "copy.json"
    copy.write_bytes(record.read_bytes())

    said = deploykit("compare", record, copy)

    assert (said.code, f"{record} and {copy} hold the same measurements" in said.err) == (0, True), said.err


@pytest.mark.parametrize("name", ["notes.html", "folder", "missing/page.html"])
def test_compare_replaces_nothing_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    report.run(page_report(), tmp_path)
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    (tmp_path / "folder").mkdir()

    said = deploykit("compare", tmp_path / "report.json", tmp_path / "report.json", "--html", tmp_path / name)

    assert said.code == 2 and said.error and said.fix
    assert (tmp_path / "notes.html").read_text() == "<p>mine</p>"
