"""The report: nothing is lost on the way to JSON and back, and every row stands in the Markdown."""

import dataclasses
import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_PREPROCESS, TINY_SPEC

from deploy_kit import report
from deploy_kit.errors import InputError, RecipeError, StoreError
from deploy_kit.measurements import Environment, Measurement, NotRun, SpeedUp
from deploy_kit.records import Answers, Artifact, CheckpointFacts, Proof, TensorSpec
from deploy_kit.results import Limits, ParityReport, PassRow, Report, Row, StageTime

HERE = Environment(
    host="Linux 6.1 x86_64",
    cpu="A processor",
    isa=("avx2", "avx512_vnni"),
    cores=2,
    memory_gib=7.8,
    governor="",
    clock_mhz=2400.0,
    load=0.1,
    gpu="",
    virtual=True,
    versions=(("python", "3.11"), ("onnxruntime", "1.31")),
)


def artifact(name: str, engine: str | None = None, **changes: Any) -> Artifact:
    facts = {
        "kind": "engine" if engine else "onnx",
        "name": name,
        "path": f"build/{name}/model.onnx",
        "sha256": name.ljust(64, "0"),
        "size_bytes": 250_000,
        "precision": "int8",
        "inputs": (TensorSpec(name="input", dtype="float", shape=("N", 1, 16, 16)),),
        "outputs": (TensorSpec(name="logits", dtype="float", shape=("N", 4)),),
        "preprocess": TINY_PREPROCESS,
        "stage": "build" if engine else "quantize",
        "parent": "p" * 64,
        "engine": engine,
        "made_by": (("scheme", "int8_ort"),),
        "proof": Proof(source="the engine", counts=(("Conv", "int8", 9),)) if engine else None,
    }
    return Artifact(**facts | changes)


def parity(label: str, **changes: Any) -> ParityReport:
    facts = {
        "artifact": "a" * 64,
        "label": label,
        "n": 100,
        "images": "bundled:some",
        "sqnr_db": 31.4,
        "cosine": 0.999,
        "max_error": 0.25,
        "agreement": 0.97,
        "top1_reference": 0.93,
        "top1": 0.925,
        "drop_pp": 0.5,
        "drop_pp_interval": 0.7,
        "worst_images": (3, 1, 4),
        "limits": Limits(min_sqnr_db=20),
    }
    return ParityReport(**facts | changes)


def measurement(label: str, samples_ms: tuple[float, ...]) -> Measurement:
    return Measurement(
        artifact="a" * 64,
        label=label,
        batch=1,
        span="compute",
        samples_ms=samples_ms,
        rounds=(0,),
        warmup_runs=60,
        steady=False,
        settings=(("threads", "2"),),
        environment=HERE,
        when="2026-01-01T00:00:00+00:00",
    )


def row(name: str, engine: str, **changes: Any) -> Row:
    label = f"{name} · {engine}"
    facts = {"label": label, "artifact": artifact(name, engine), "parity": parity(label)}
    return Row(**facts | changes)


def made(*rows: Row, **changes: Any) -> Report:
    facts: dict[str, Any] = {
        "recipe": "some",
        "checkpoint": CheckpointFacts(
            name="some.pth",
            sha256="c" * 64,
            size_bytes=1000,
            container="torch zip",
            spec=TINY_SPEC,
            parameters=1234,
            remarks=("weights taken from 'state_dict'",),
        ),
        "answers": Answers(
            path="answers/a.npz", sha256="b" * 64, images="bundled:some", n=100, labelled=True, top1=0.93
        ),
        "difference": 2e-7,
        "lineage": (artifact("int8"),),
        "passes": (
            PassRow(
                name="fold_batchnorm",
                fired=3,
                nodes_before=50,
                nodes_after=47,
                macs_before=10_000,
                macs_after=10_000,
                max_difference=1e-7,
                promise=1e-5,
                refused=(("the convolution feeds others too", 2),),
            ),
        ),
        "rows": rows,
        "environment": HERE,
        "times": (StageTime(stage="export", name="some.pth", seconds=1.5, reused=True),),
        "when": "2026-01-01T00:00:00+00:00",
        "version": "0.1.0",
    }
    return Report(**facts | changes)


def everything() -> Report:
    """Give a report with a row of every kind."""
    return made(
        row("fp32", "onnxruntime", parity=parity("fp32 · onnxruntime", sqnr_db=math.inf)),
        row(
            "int8",
            "onnxruntime",
            measurement=measurement("int8 · onnxruntime", tuple(1 + i / 1000 for i in range(1000))),
            speed_up=SpeedUp(ratio=1.52, low=1.4, high=1.6, baseline="fp32 · onnxruntime"),
        ),
        row("int8", "openvino", parity=parity("int8 · openvino", sqnr_db=10.0)),
        row(
            "fp16",
            "tensorrt_rtx",
            parity=NotRun(artifact="d" * 64, label="fp16 · tensorrt_rtx", why="no NVIDIA GPU on this machine"),
            measurement=NotRun(artifact="d" * 64, label="fp16 · tensorrt_rtx", why="no NVIDIA GPU on this machine"),
        ),
        Row(label="bf16 · onnxruntime", artifact=None, failed="it has no bfloat16"),
        remarks=("this is a remark",),
    )


def tables(text: str) -> dict[str, list[list[str]]]:
    """Read the first table under each heading, as Markdown renders it: cells without their escapes."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(heading, []).append(cells)
    return found


def engines(of: Report) -> list[dict[str, str]]:
    """Read the rows of the table of engines, by heading."""
    headings, _, *rows = tables(report.markdown(of))["Engines"]
    return [dict(zip(headings, cells, strict=True)) for cells in rows]


def test_a_report_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    whole = everything()

    report.run(whole, tmp_path)

    assert report.read(tmp_path / "report.json") == whole


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

    assert verdicts[:3] == ["accepted", "accepted", "rejected: SQNR 10 dB, at least 20 asked for"]
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
    of = made(Row(label="int8 · openvino", artifact=None, failed="Conv|Concat | BatchNormalization"))

    assert engines(of)[0]["verdict"] == "failed: Conv|Concat | BatchNormalization"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_reason_of_many_lines_stays_in_its_cell(end: str) -> None:
    of = made(Row(label="int8 · openvino", artifact=None, failed=f"the parser refuses it:{end}node 'a'{end}node 'b'"))

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
        report.read(tmp_path / "report.json")


def test_a_report_that_is_cut_off_is_an_input_error(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text()[:1000])

    with pytest.raises(InputError, match="not a report"):
        report.read(path)


def test_an_unknown_key_of_a_report_names_the_nearest(tmp_path: Path) -> None:
    report.run(everything(), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"sqnr_db"', '"sqnr"', 1))

    with pytest.raises(RecipeError, match=r"rows\[0\]\.parity: unknown key 'sqnr'") as caught:
        report.read(path)

    assert caught.value.hint == "did you mean 'sqnr_db'?"


def test_a_full_disk_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = everything()
    report.run(earlier, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        report.run(made(), tmp_path)

    assert report.read(tmp_path / "report.json") == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
