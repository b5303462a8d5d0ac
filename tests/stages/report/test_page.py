"""The page as text: it loads nothing, escapes everything, and its marks carry the record's numbers."""

import base64
import dataclasses
import hashlib
import json
import math
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
from page_elements import Page
from page_records import CLASSES, ENGINES, difference, page_report, thumbnail
from report_records import everything, made, row

from deploy_kit.measure import latency
from deploy_kit.records import codec, first_page
from deploy_kit.records.engine_table import HEADINGS, cells
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.parity import Sample
from deploy_kit.records.results import EngineRow, ParityReport, Report
from deploy_kit.stages import report as stage
from deploy_kit.stages.report import page
from deploy_kit.stages.report.page import plot, tables, tradeoff

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`\x1b[31m\u202egnp.exe"


def drawn(of: Report) -> Page:
    return Page(page.page(of))


def measured(of: Report) -> dict[str, Measurement]:
    return {row.label: row.measurement for row in of.rows if isinstance(row.measurement, Measurement)}


def test_nothing_is_loaded_and_only_the_page_itself_may_run() -> None:
    text = page.page(page_report())
    found = Page(text)
    (policy,) = (a["content"] for tag, a in found.found if tag == "meta" and a.get("http-equiv"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)

    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    for inside in (script, style):
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    sources = [a.get("src") or a.get("href") for _, a in found.found if a.get("src") or a.get("href")]
    assert all(source is not None and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not any(name.startswith("on") or name == "style" for _, a in found.found for name in a)


def test_every_picture_is_there_where_the_record_has_its_numbers() -> None:
    figures = [a["id"] for tag, a in drawn(page_report()).found if tag == "figure"]

    assert figures == [
        "tradeoff", "latency", "layers-3", "layers-4", "depth", "classes", "passes", "roofline", "course", "machine-0",
        "machine-1",
    ]  # fmt: skip


def test_a_report_without_measurements_has_a_page_too() -> None:
    found = drawn(made(EngineRow(label="int8 · openvino", artifact=None, failed="no such node"), passes=()))

    assert not [tag for tag, _ in found.found if tag == "figure"]
    assert "failed" in "".join(found.texts) and "no such node" in "".join(found.texts)


def test_the_tradeoff_has_the_numbers_of_the_record() -> None:
    whole = page_report()
    found = {mark["label"]: mark for mark in drawn(whole).marks("tradeoff")}

    assert found.keys() == ENGINES.keys()
    for one in whole.rows:
        assert isinstance(one.parity, ParityReport) and one.parity.drop is not None
        samples = measured(whole)[one.label].samples_ms
        assert float(found[one.label]["ms"]) == statistics.median(samples)
        drop = one.parity.drop
        ends = [float(found[one.label][key]) for key in ("points", "low", "high")]
        assert ends == [-drop.points, -drop.high, -drop.low]


def test_the_pareto_front_leaves_out_what_is_rejected_and_what_is_beaten() -> None:
    whole = page_report()
    points = tradeoff.points_of(whole.rows, plot.looks(ENGINES))

    assert {p.name for p in points if p.on_front} == {"fp32 · openvino", "fp16 · openvino", "int8 · onnxruntime"}
    assert {p.name: p.barred for p in points}["int8 · openvino"] == "rejected"


def test_an_invalid_latency_is_on_no_front_and_is_marked() -> None:
    whole = page_report()
    rows = [
        dataclasses.replace(one, measurement=dataclasses.replace(timed, invalid=("the clock fell",)))
        for one in whole.rows
        if isinstance(timed := one.measurement, Measurement)
    ]
    points = tradeoff.points_of(tuple(rows), plot.looks(ENGINES))

    assert {p.barred for p in points} == {"latency INVALID"}
    assert not any(p.on_front for p in points)
    assert "INVALID" in "".join(drawn(dataclasses.replace(whole, rows=tuple(rows))).texts)


def test_an_emulated_latency_is_marked_wherever_it_stands() -> None:
    whole = page_report()
    timed = measured(whole)["fp32 · openvino"]
    emulated = dataclasses.replace(timed, environment=dataclasses.replace(timed.environment, emulated="qemu"))
    rows = tuple(
        dataclasses.replace(one, measurement=emulated) if one.label == "fp32 · openvino" else one for one in whole.rows
    )
    found = drawn(dataclasses.replace(whole, rows=rows))

    assert "emulated: not a measurement" in found.texts
    assert "fp32 · openvino" not in {mark["label"] for mark in found.marks("roofline") if "label" in mark}
    assert not any(p.on_front for p in tradeoff.points_of(rows, plot.looks(ENGINES)) if p.name == "fp32 · openvino")


def test_the_distributions_have_the_percentiles_and_counts_of_the_samples() -> None:
    whole = page_report()
    found = {mark["label"]: mark for mark in drawn(whole).marks("latency")}

    for label, timed in measured(whole).items():
        assert int(found[label]["n"]) == len(timed.samples_ms)
        for percent in (50, 90, 99):
            assert float(found[label][f"p{percent}"]) == timed.percentile_ms(percent)


def test_no_percentile_is_drawn_that_the_samples_do_not_carry() -> None:
    whole = page_report()
    few = dataclasses.replace(whole.rows[0], measurement=dataclasses.replace(
        measured(whole)[whole.rows[0].label], samples_ms=(1.0,) * 30, rounds=(0,), starts_ms=()
    ))  # fmt: skip

    (mark,) = drawn(made(few)).marks("latency")

    assert mark.keys() == {"label", "n", "p50"}


def test_layer_times_add_up_to_the_profile() -> None:
    whole = page_report()
    profile = measured(whole)["int8 · openvino"].profile
    assert profile is not None

    total = sum(float(mark["ms"]) for mark in drawn(whole).marks("layers-4"))

    assert total == pytest.approx(profile.total_ms)


def test_the_error_by_depth_is_that_of_the_record() -> None:
    found = [(mark["point"], float(mark["sqnr-db"])) for mark in drawn(page_report()).marks("depth")]

    expected = [(p.point, p.sqnr_db) for one in (difference("int8"), difference("x", better=6.0)) for p in one.points]
    assert found == expected


def test_the_classes_that_lost_stand_with_both_scores() -> None:
    found = {(m["label"], int(m["class-index"])): m for m in drawn(page_report()).marks("classes")}
    parity = page_report().rows[-1].parity
    assert isinstance(parity, ParityReport) and parity.scores is not None

    worst = parity.scores.worst
    assert worst is not None
    mark = found["int8 · openvino", worst.index]
    assert (float(mark["reference"]), float(mark["found"])) == (worst.reference, worst.found)


def test_the_roofline_has_each_share_of_the_roof() -> None:
    whole = page_report()
    found = {mark["label"]: float(mark["share"]) for mark in drawn(whole).marks("roofline") if "label" in mark}

    for label, timed in measured(whole).items():
        median = timed.percentile_ms(50)
        assert timed.roof is not None and median is not None
        assert found[label] == timed.roof.share(median)


def test_the_passes_begin_where_the_one_before_ended() -> None:
    marks = [mark for mark in drawn(page_report()).marks("passes") if mark["what"] == "nodes"]

    assert [(m["name"], int(m["before"]), int(m["after"])) for m in marks] == [
        ("exported", 50, 0),
        ("fold_batchnorm", 50, 47),
    ]


def test_what_the_gauges_read_is_drawn() -> None:
    (first, *_), *_ = [drawn(page_report()).marks("machine-0")]

    assert [float(first[key]) for key in ("before", "low", "high", "after")] == [2400, 2350, 2900, 2500]


def test_a_flipped_image_is_shown_with_both_predictions_and_margins() -> None:
    found = drawn(page_report())
    text = "".join(found.texts)

    assert "checkpoint: coat (margin 1.25)" in text and "pullover (margin 0.5)" in text and "labelled coat" in text
    (image,) = (a for tag, a in found.found if tag == "img")
    assert image == {"src": f"data:image/jpeg;base64,{thumbnail('x').data}", "alt": "images/0001.png"}


@pytest.mark.parametrize("data", ["no base64", base64.b64encode(b"<svg onload=alert(1)>").decode(), "", "é"])
def test_a_thumbnail_that_is_no_jpeg_is_not_embedded(data: str) -> None:
    one = dataclasses.replace(thumbnail("a.png"), data=data)

    assert not [tag for tag, _ in drawn(page_report(thumbnails=(one,))).found if tag == "img"]


def test_hostile_texts_become_no_markup_and_hide_nothing() -> None:
    whole = page_report(classes=(HOSTILE, *CLASSES[1:]), file=HOSTILE)
    rows = tuple(dataclasses.replace(one, label=f"{HOSTILE} · {one.label}") for one in whole.rows)
    text = page.page(dataclasses.replace(whole, recipe=HOSTILE, remarks=(HOSTILE,), rows=rows, command=HOSTILE))
    found = Page(text)

    tags = Counter(tag for tag, _ in found.found)
    assert (tags["script"], tags["img"], tags["style"]) == (1, 1, 1)
    assert not any(name.startswith("on") for _, a in found.found for name in a)
    assert "\x1b" not in text and "\u202e" not in text
    assert "\\u202egnp.exe" in "".join(found.texts)


def test_names_that_run_from_right_to_left_keep_their_place_in_a_sentence() -> None:
    said = tables.sentence("\u05d7\u05ea\u05d5\u05dc \u05e7\u05d8\u05df → \u0643\u0644\u0628, `a.png`")

    assert (
        said
        == "<bdi>\u05d7\u05ea\u05d5\u05dc \u05e7\u05d8\u05df</bdi> → <bdi>\u0643\u0644\u0628</bdi>, <code>a.png</code>"
    )


def test_markdown_shows_hostile_texts_as_text() -> None:
    lines = stage.markdown(made(EngineRow(label=f"{HOSTILE}|x", artifact=None, failed=HOSTILE)))

    assert "<script" not in lines and "<img" not in lines and "\x1b" not in lines and "\u202e" not in lines


def test_the_first_page_answers_a_reviewer() -> None:
    whole = page_report(command="deploykit run reports/some/recipe.yaml")
    facts = dict(first_page.facts(whole))

    assert facts["checkpoint sha256"] == whole.checkpoint.sha256
    assert facts["preprocessing"] == ("images of 16×16 px, gray; (pixel / 255 - mean) / std with mean 0.5 and std 0.25")
    assert facts["check data sha256"] == "not recorded"  # this record is of an earlier version
    assert facts["limits in force"] == "drop ≤ 0.3 points"
    assert facts["budgets"] == "latency ≤ 4 ms"
    assert dict(first_page.facts(page_report(recommendation=None)))["budgets"] == "not recorded"
    assert " (avx2, avx512_vnni), " in facts["machine"]
    assert facts["repeat with"] == "deploykit run reports/some/recipe.yaml"
    assert facts["repeat in"].startswith("the folder that holds reports: ")
    text = "".join(drawn(whole).texts)
    assert "Drop is in percentage points of top-1, with the 95 % interval of the paired difference, whose " in text
    assert "Speed-up is against fp32 · " in text
    assert "): drop +0.09 [+0.01, +0.18] points, speed-up 2.38× [2.37, 2.39] against fp32 · onnxruntime." in text
    for value in (*facts.values(), *(line[3] for line in first_page.files(whole))):
        assert value in text


def test_images_that_were_not_computed_are_told_beside_the_engines() -> None:
    whole = page_report()
    parity = whole.rows[0].parity
    assert isinstance(parity, ParityReport)
    sampled = dataclasses.replace(parity, sample=Sample(n=187, deviation=1e-5, margin=0.02))
    rows = (dataclasses.replace(whole.rows[0], parity=sampled), *whole.rows[1:])
    said = f"{whole.rows[0].label} computed 187 of them: the other classes follow from these (see Check)."

    assert said in "".join(drawn(dataclasses.replace(whole, rows=rows)).texts)
    assert "the other classes follow" not in "".join(drawn(whole).texts)


@pytest.mark.parametrize(
    "command", ["", "deploykit run /r.yaml", "deploykit run ../r.yaml", "deploykit run 'r", "x y ''"]
)
def test_a_command_that_needs_no_folder_names_none(command: str) -> None:
    assert "repeat in" not in dict(first_page.facts(page_report(command=command)))


def test_data_limits_and_machine_stand_before_the_engines_in_whatever_width() -> None:
    text = page.page(page_report())

    assert (
        text.index("check data sha256") < text.index("<dt>limits") < text.index("<dt>machine") < text.index(">Engines<")
    )


def test_each_curve_over_the_bench_can_be_told_from_the_others_in_grey() -> None:
    course = page.page(page_report()).partition('id="course"')[2].partition("</figure>")[0]
    legend = course.partition('<ul class="legend">')[2]
    style = Path(page.__file__).with_name("page.css").read_text()

    strokes = re.findall(r'class="curve (c\d)"></path><path d="([^"]+)"', legend)
    assert len(set(strokes)) == len(ENGINES)
    assert all(f"svg .curve.c{color} {{ stroke-dasharray: " in style for color in range(1, plot.N_COLORS))
    for color, _ in strokes:  # the curve itself carries its marks
        assert re.search(rf'class="mark curve {color}".*?</path><path d="[^"]+" class="{color}">', course)


def test_a_line_for_each_file_of_an_engine_has_its_own_hash() -> None:
    whole = page_report()
    engine = whole.rows[1].artifact
    assert engine is not None
    parts = ((engine.sha256, ".xml", 100_000, "a" * 64), (engine.sha256, ".bin", 900_000, "b" * 64))

    of = dataclasses.replace(whole, parts=parts, delivered=((whole.rows[1].label, "best-fp32.xml"),))

    assert [line[1:4] for line in first_page.files(of) if line[0] == whole.rows[1].label] == [
        ("best-fp32.xml", "0.10 MB", "a" * 64),
        ("best-fp32.bin", "0.90 MB", "b" * 64),
    ]
    assert "sha256 of .bin bbbbbbbbbbbb…" in page.page(of)
    assert codec.from_json(Report, json.loads(json.dumps(codec.to_json(of)))) == of


def test_a_report_of_an_earlier_version_is_read_and_drawn(tmp_path: Path) -> None:
    stage.run(everything(), tmp_path)
    path = tmp_path / "report.json"
    data = json.loads(path.read_text())
    for key in ("device", "recipe_yaml", "command", "differences", "thumbnails", "recommendation", "parts"):
        del data[key]
    del data["answers"]["images_sha256"]
    path.write_text(json.dumps(data))

    old = stage.load_report(path)

    assert page.page(old) == page.page(everything())


def test_the_recipe_is_written_beside_the_report_and_the_command_runs_it(tmp_path: Path) -> None:
    stage.run(page_report(recipe_yaml="name: some\n", device="board"), tmp_path / "a b")

    back = stage.load_report(tmp_path / "a b" / "report.json")
    paths = "# Relative paths begin at the folder in which deploykit was started.\n"
    assert (tmp_path / "a b" / "recipe.yaml").read_text() == paths + "name: some\n"
    assert back.command == f"deploykit run '{tmp_path}/a b/recipe.yaml' --device board"
    assert back.command in (tmp_path / "a b" / "report.md").read_text()


def test_the_interval_of_a_median_needs_six_rounds() -> None:
    assert latency.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (0.0, math.inf)
    assert latency.median_interval([6.0, 1.0, 2.0, 3.0, 4.0, 5.0]) == (1.0, 6.0)
    # Conover's table: of 12 observations the third from each end enclose the median with 96.1 %.
    assert latency.median_interval(list(map(float, range(1, 13)))) == (3.0, 10.0)


def test_engines_that_were_delivered_are_named_by_their_files() -> None:
    whole = page_report()
    label = next(row.label for row in whole.rows if row.artifact is not None)

    beside = dataclasses.replace(whole, delivered=((label, "best-int8.xml"),))

    assert [line[1] for line in first_page.files(beside) if line[0] == label] == ["best-int8.xml"]
    assert "best-int8.xml" in page.page(beside).partition("<h2>Files")[0]
    assert codec.from_json(Report, json.loads(json.dumps(codec.to_json(beside)))) == beside


def test_a_page_of_many_engines_stays_small() -> None:
    whole = page_report()
    rows = tuple(dataclasses.replace(one, label=f"{n} {one.label}") for n in range(8) for one in whole.rows)

    assert len(page.page(dataclasses.replace(whole, rows=rows)).encode()) < 1_000_000


def test_new_fields_come_back_from_json() -> None:
    whole = page_report(recipe_yaml="name: x\n", device="board", command="deploykit run x")

    assert codec.from_json(Report, json.loads(json.dumps(codec.to_json(whole)))) == whole


def test_ticks_are_round_and_within_the_axis() -> None:
    linear = plot.axis([0.3, 9.1], start=0, end=100)
    wide = plot.axis([0.02, 30.0], start=0, end=100, log=True)

    assert [text for _, text in linear.ticks] == ["0", "2", "4", "6", "8"]
    assert [text for _, text in wide.ticks] == ["0.1", "1", "10"] or len(wide.ticks) > 3
    assert all(axis.start <= axis.at(value) <= axis.end for axis in (linear, wide) for value, _ in axis.ticks)


def test_an_axis_of_equal_values_has_room() -> None:
    axis = plot.axis([5.0, 5.0], start=0, end=100)

    assert axis.low < 5 < axis.high
    assert axis.at(math.inf) == 100 and axis.at(-math.inf) == 0


def test_a_row_without_a_checked_engine_has_no_invented_verdict() -> None:
    assert "not checked" in "".join(drawn(made(row("fp32", "onnxruntime", parity=None))).texts)


def test_the_recommended_engine_stands_with_a_reason_for_every_other() -> None:
    whole = page_report()
    found = whole.recommendation
    assert found is not None and found.winner == "int8 · onnxruntime"

    text = " ".join(drawn(whole).texts)
    lines = stage.markdown(whole)

    assert "latency ≤ 4 ms" in text and found.why in text
    winner = next(row for row in whole.rows if row.label == found.winner)
    told = dict(zip(HEADINGS, cells(winner), strict=True))
    assert winner.artifact is not None
    heading = text[: text.index("What was proved")]
    for words in (f"drop {told['drop']}", f"speed-up {told['speed-up']}", f"sha256 {winner.artifact.sha256[:12]}…"):
        assert words in heading
    for loser in found.losers:
        assert loser.why in text and loser.why in lines
    assert f"**{found.winner}** within latency ≤ 4 ms: {found.why}." in lines
