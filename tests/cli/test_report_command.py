"""``deploykit report FILE``: a report verified and drawn again from its record."""

import json
from pathlib import Path

import pytest
from command_line import deploykit
from page_records import page_report

from deploy_kit.machine.environment import library_version
from deploy_kit.stages import report


def test_a_report_is_drawn_again_from_its_record_alone(tmp_path: Path) -> None:
    whole = page_report()
    report.run(whole, tmp_path / "given")

    said = deploykit("report", tmp_path / "given" / "report.json", "-o", tmp_path / "again")

    assert "report  " + str(tmp_path / "again" / whole.recipe / "report.md") in said.out, said.err
    for name in ("report.md", "report.html"):
        drawn = (tmp_path / "again" / whole.recipe / name).read_text()
        assert drawn.startswith((tmp_path / "given" / name).read_text()[:200].partition("sha256-")[0])


def test_a_report_drawn_again_keeps_the_command_that_repeats_it(tmp_path: Path) -> None:
    record = report.run(page_report(recipe_yaml="name: some\n"), tmp_path / "given").with_suffix(".json")
    command = json.loads(record.read_text())["command"]

    said = deploykit("report", record, "-o", tmp_path / "again")

    assert "report  " in said.out, said.err
    assert json.loads((tmp_path / "again" / page_report().recipe / "report.json").read_text())["command"] == command
    assert "agree with each other, and no delivered file lies beside it; a report is not signed" in said.err


def test_a_page_or_recipe_that_the_record_does_not_draw_is_named(tmp_path: Path) -> None:
    mine = page_report(recipe_yaml="name: some\n", version=library_version("deploykit"))
    first = report.run(mine, tmp_path / "first").with_suffix(".json")
    record = report.run(report.load_report(first), tmp_path / "given").with_suffix(".json")
    whole = deploykit("report", record, "-o", tmp_path / "again")
    for name in ("report.html", "recipe.yaml"):
        (record.with_name(name)).write_text("changed")

    changed = deploykit("report", record, "-o", tmp_path / "again")

    assert "not drawn from this record" not in whole.err
    for name, found in (("report.html", True), ("recipe.yaml", True), ("report.md", False)):
        assert (f"note: {record.with_name(name)}: changed, or not drawn from this record" in changed.err) is found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--images", "val"), "--images: a report is drawn again from its record alone"),
        (("--save-recipe", "a.yaml"), "--save-recipe: a report is drawn again from its record alone"),
    ],
)
def test_options_about_the_store_are_refused(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    report.run(page_report(), tmp_path)

    said = deploykit("report", tmp_path / "report.json", *more, "-o", tmp_path / "again")

    assert (said.code, words in said.error, (tmp_path / "again").exists()) == (2, True, False), said.err


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    report.run(page_report(), tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    data["rows"][0]["parity"]["top1"] = 1.5
    (tmp_path / "report.json").write_text(json.dumps(data))

    said = deploykit("report", tmp_path / "report.json", "-o", tmp_path / "again")

    assert (said.code, "expected a share in 0..1, found 1.5" in said.error) == (2, True), said.err


def test_a_recommendation_of_an_engine_that_is_not_there_is_refused(tmp_path: Path) -> None:
    report.run(page_report(), tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    data["recommendation"]["winner"] = "int4 · openvino"
    (tmp_path / "report.json").write_text(json.dumps(data))

    said = deploykit("report", tmp_path / "report.json", "-o", tmp_path / "again")

    assert (said.code, "recommendation: expected each engine of rows once" in said.error) == (2, True)
