"""The report: nothing is lost on the way to JSON and back, and every row stands in the Markdown."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from report_records import everything, made, measurement, row, tables

from deploy_kit.base.errors import InputError, RecipeError, StoreError
from deploy_kit.records.results import EngineRow, Report
from deploy_kit.stages import report


def engines(of: Report) -> list[dict[str, str]]:
    """Read the rows of the table of engines, by heading."""
    headings, _, *rows = tables(report.markdown(of))["Engines"]
    return [dict(zip(headings, cells, strict=True)) for cells in rows]


def test_a_report_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    whole = everything()

    report.run(whole, tmp_path)

    assert report.load_report(tmp_path / "report.json") == whole


def test_the_json_is_json_for_every_reader(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)


def test_every_sample_is_in_the_json(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)

    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert len(rows[1]["measurement"]["samples_ms"]) == 1000


def test_the_path_given_is_that_of_the_markdown(tmp_path: Path) -> None:
    path = report.run(everything(), tmp_path / "new" / "folder")

    assert path.read_text() == report.markdown(everything())


def test_each_row_stands_in_the_markdown_once() -> None:
    whole = everything()

    assert [found["artifact"] for found in engines(whole)] == [one.label for one in whole.rows]


def test_every_line_of_every_table_has_as_many_cells_as_its_heading() -> None:
    for heading, lines in tables(report.markdown(everything())).items():
        assert {len(cells) for cells in lines} == {len(lines[0])}, heading


def test_a_cell_holds_no_number_that_was_not_measured() -> None:
    failed = engines(everything())[-1]

    assert {failed[heading] for heading in ("size", "top-1", "drop", "agreement", "p50", "p99", "speed-up")} == {"–"}


def test_an_engine_that_was_not_run_has_its_reason_and_no_number() -> None:
    found = engines(everything())[3]

    assert found["verdict"] == "not run: no NVIDIA GPU on this machine"
    assert {found[heading] for heading in ("top-1", "agreement", "p50", "p99", "speed-up")} == {"–"}


def test_the_verdicts_say_what_happened() -> None:
    verdicts = [found["verdict"] for found in engines(everything())]

    assert verdicts[:3] == ["accepted (SQNR ≥ 20 dB)"] * 2 + ["rejected: SQNR 10 dB, at least 20 asked for"]
    assert verdicts[4] == "failed: it has no bfloat16"


def test_numbers_are_written_with_their_units() -> None:
    found = engines(everything())[1]

    assert (found["top-1"], found["drop"], found["agreement"]) == ("92.50 %", "+0.50 ± 0.70", "97.00 %")
    assert (found["p50"], found["speed-up"]) == ("1.500 ms", "1.52× [1.40, 1.60]")


@pytest.mark.parametrize(("n", "p99"), [(999, "–"), (1000, "1.000 ms")])
def test_no_p99_is_printed_from_fewer_than_a_thousand_samples(n: int, p99: str) -> None:
    of = made(row("int8", "openvino", measurement=measurement("int8 · openvino", (1.0,) * n)))

    assert engines(of)[0]["p99"] == p99


def test_a_pipe_in_a_reason_does_not_open_a_cell() -> None:
    of = made(EngineRow(label="int8 · openvino", artifact=None, failed="Conv|Concat | BatchNormalization"))

    assert engines(of)[0]["verdict"] == "failed: Conv|Concat | BatchNormalization"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_reason_of_many_lines_stays_in_its_cell(end: str) -> None:
    of = made(
        EngineRow(label="int8 · openvino", artifact=None, failed=f"the parser refuses it:{end}node 'a'{end}node 'b'")
    )

    line = next(line for line in report.markdown(of).splitlines() if line.startswith("| int8 · openvino"))

    assert line.endswith("node 'b' |")


def test_a_report_with_a_rejected_engine_says_so_at_the_top() -> None:
    assert "At least one engine is **rejected**." in report.markdown(everything()).split("## ")[0]


def test_a_report_without_a_rejected_engine_says_so_at_the_top() -> None:
    of = made(row("fp32", "onnxruntime"))

    assert "Every engine that ran keeps its limits." in report.markdown(of).split("## ")[0]


def test_remarks_are_written() -> None:
    assert "\n- this is a remark\n" in report.markdown(everything())


def test_the_proof_of_each_engine_is_written() -> None:
    _, _, *lines = tables(report.markdown(everything()))["Build: precision and place proved"]

    assert [cells[1] for cells in lines] == ["9 Conv int8"] * 4


def test_a_warm_up_that_was_not_steady_is_shouted() -> None:
    _, _, *lines = tables(report.markdown(everything()))["Bench"]

    assert "60 runs, NOT steady" in lines[0]


def test_refused_places_of_a_pass_are_written_with_their_reason() -> None:
    _, _, *lines = tables(report.markdown(everything()))["Simplify"]

    assert lines[0][-1] == "2: the convolution feeds others too"


def test_a_checkpoint_without_a_spec_is_an_onnx_graph() -> None:
    whole = everything()
    facts = dataclasses.replace(whole.checkpoint, spec=None)

    text = report.markdown(dataclasses.replace(whole, checkpoint=facts))

    assert text.startswith("# some: ONNX graph\n")


def test_a_missing_report_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such report"):
        report.load_report(tmp_path / "report.json")


def test_a_report_that_is_cut_off_is_an_input_error(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text()[:1000])

    with pytest.raises(InputError, match="not JSON"):
        report.load_report(path)


def test_an_unknown_key_of_a_report_names_the_nearest(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"sqnr_db"', '"sqnr"', 1))

    with pytest.raises(RecipeError, match=r"rows\[0\]\.parity: unknown key 'sqnr'") as caught:
        report.load_report(path)

    assert caught.value.hint == "did you mean 'sqnr_db'?"


def test_a_full_disk_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = everything()
    report.run(earlier, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        report.run(made(), tmp_path)

    assert report.load_report(tmp_path / "report.json") == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
