"""Numbers that no run writes: refused with the field's name, and whatever is let through is drawn."""

import copy
import itertools
import json
import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import deploykit
from page_records import page_report
from report_records import HERE, artifact, made, measurement, parity, row
from tiny_densenet import TINY_PREPROCESS

from deploy_kit.base.errors import DeployKitError, InputError, StoreError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.machine.environment import library_version
from deploy_kit.records import codec, passports
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import LoadGenResult
from deploy_kit.records.parity import ClassScore, Drop
from deploy_kit.records.results import Limits, ParityReport, Report
from deploy_kit.stages import deliver
from deploy_kit.stages import report as stage
from deploy_kit.stages.report import page, plausible

LABEL = "int8 · onnxruntime"
LOADGEN = LoadGenResult(valid=False, sentence="too few queries", version="5", summary=())


def _whole() -> dict[str, Any]:
    """Give the JSON of a report of one engine with few samples."""
    data: dict[str, Any] = json.loads(json.dumps(codec.to_json(page_report())))
    data["rows"] = data["rows"][-1:]
    measured = data["rows"][0]["measurement"]
    measured |= {"samples_ms": measured["samples_ms"][:24], "starts_ms": measured["starts_ms"][:24]}
    measured["rounds"] = [0, 4, 8, 12, 16, 20]
    return data


def put(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Put a value into a place such as ``rows.0.parity.n``."""
    *way, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    inner: Any = data
    for part in way:
        inner = inner[part]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("rows.0.parity.n", 0, r"rows\[0\]\.parity\.n: expected at least one image, found 0"),
        ("rows.0.parity.top1", "nan", r"parity\.top1: expected a share in 0\.\.1, found nan"),
        ("rows.0.parity.agreement", 1.5, r"parity\.agreement: expected a share in 0\.\.1, found 1\.5"),
        ("rows.0.measurement.samples_ms", [], r"measurement\.rounds: expected samples in rounds"),
        ("rows.0.measurement.samples_ms.3", "inf", r"samples_ms: expected times in ms, found inf"),
        ("rows.0.measurement.samples_ms.3", 0.0, r"samples_ms: expected times in ms, found 0\.0"),
        ("rows.0.measurement.samples_ms.3", -1.0, r"samples_ms: expected times in ms, found -1\.0"),
        ("rows.0.measurement.rounds", [0, 30], r"rounds: expected ascending places among 24 samples"),
        ("rows.0.measurement.batch", 0, r"batch: expected at least 1, found 0"),
        ("rows.0.measurement.roof.bandwidth_b_s", 0.0, r"roof\.bandwidth_b_s: expected a number above 0"),
        ("checkpoint.spec.stem", [], r"checkpoint\.spec: expected a stem, blocks, .*, found none"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_field(tmp_path: Path, path: str, value: object, words: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(put(_whole(), path, value)))

    with pytest.raises(InputError, match=words):
        stage.load_report(file)
    said = deploykit("compare", file, file)
    assert said.code == 2 and said.fix


def test_a_file_nested_without_end_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[" * 100_000)

    with pytest.raises(InputError, match="nested too deeply"):
        stage.load_report(tmp_path / "report.json")
    assert deploykit("compare", tmp_path / "report.json", tmp_path / "report.json").code == 2


def test_a_record_of_the_store_that_cannot_be_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    whole = page_report()
    changed = [
        replace(row, parity=replace(row.parity, n=0)) if isinstance(row.parity, ParityReport) else row
        for row in whole.rows
    ]

    with pytest.raises(StoreError, match=r"the store: rows\[\d\]\.parity\.n: expected at least one image, found 0"):
        stage.run(replace(whole, rows=tuple(changed)), tmp_path / "reports")

    assert list(tmp_path.iterdir()) == []
    stage.run(whole, tmp_path / "reports")


def test_a_report_as_deploykit_writes_it_is_plausible() -> None:
    plausible.verify_report(page_report(), "report.json")


@pytest.mark.slow
def test_whatever_number_is_let_through_is_drawn() -> None:
    whole = _whole()
    places = dict[str, str]()  # one place of each kind: the same fields of other list entries are drawn alike
    _numbers(whole, (), places)
    cases = list(itertools.product(places.values(), ("nan", "inf", 0, -1, 1e308)))

    for path, value in random.Random(0).sample(cases, 90):
        try:
            one = codec.from_json(Report, put(copy.deepcopy(whole), path, value))
            plausible.verify_report(one, "report.json")
        except DeployKitError:
            continue
        page.page(one)


def _numbers(value: object, way: tuple[str, ...], places: dict[str, str]) -> None:
    """Note one place for each kind of number in JSON data."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        _numbers(child, (*way, str(key)), places)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        places.setdefault(".".join("*" if part.isdecimal() else part for part in way), ".".join(way))


def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    stage.run(page_report(version=library_version("deploykit")), tmp_path)
    whole = json.loads((tmp_path / "report.json").read_text())
    place = next(i for i, row in enumerate(whole["rows"]) if row["speed_up"] and row["parity"]["drop"])

    def refusal(*keys: str, value: object) -> str:
        data = json.loads((tmp_path / "report.json").read_text())
        part = data["rows"][place]
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        (tmp_path / "edited.json").write_text(json.dumps(data))
        with pytest.raises(InputError) as caught:
            stage.load_report(tmp_path / "edited.json")
        return str(caught.value).partition(": ")[2]

    assert refusal("artifact", "sha256", value="0" * 64).startswith(
        f"rows[{place}].parity.artifact: expected the engine"
    )
    assert refusal("parity", "drop_pp", value=-4.1).startswith(f"rows[{place}].parity.drop_pp: expected ")
    assert "the difference of both accuracies" in refusal("parity", "top1", value=0.5)
    faster = refusal("speed_up", "ratio", value=9.9)
    assert faster.startswith(f"rows[{place}].speed_up.ratio: expected ") and faster.endswith("found 9.9")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "rows.4.parity.drop.low",
            -9.0,
            r"drop\.low: expected 0\.1.*, as 34 lost and 3 won of 10000 give, found -9\.0",
        ),
        (
            "rows.0.parity.drop.high",
            0.001,
            r"drop\.high: expected 0\.03.*, as 0 lost and 0 won of 10000 give, found 0\.001",
        ),
        ("rows.4.parity.drop.p", 0.5, r"drop\.p: expected .*, found 0\.5"),
        ("rows.4.parity.drop.needed", 5, r"drop\.needed: expected None, .*, found 5"),
        ("rows.4.parity.drop.lost", -1, r"drop: expected 0 to 10000 images lost and won, found -1 and 3"),
        ("rows.4.parity.drop_pp_interval", 0.01, r"drop_pp_interval: expected 0\.1.*, half the width of parity\.drop"),
        ("rows.4.parity.n", 9000, r"rows\[4\]\.parity\.n: expected 10000, as in answers, found 9000"),
        ("rows.4.parity.agreement", 0.5, r"agreement: expected 0\.9963, as 37 of 10000 flipped, found 0\.5"),
        ("rows.4.parity.flips.n", 40, r"agreement: expected 0\.996, as 40 of 10000 flipped, found 0\.9963"),
        ("answers.top1", 0.5, r"rows\[0\]\.parity\.top1_reference: expected 0\.5, as in answers, found 0\.93"),
        ("checkpoint.sha256", "0" * 64, r"checkpoint\.sha256: expected c{64}, the parent of lineage\[0\], found 0{64}"),
    ],
)
def test_a_check_that_contradicts_its_counts_or_its_images_is_refused(path: str, value: object, words: str) -> None:
    lineage = (artifact("exported", stage="export", parent="c" * 64),)
    whole = codec.to_json(page_report(version=library_version("deploykit"), lineage=lineage))
    plausible.verify_report(codec.from_json(Report, whole), "report.json")

    with pytest.raises(InputError, match=words):
        plausible.verify_report(codec.from_json(Report, put(whole, path, value)), "report.json")


def test_accuracies_that_the_recalls_of_the_classes_contradict_are_refused() -> None:
    whole = page_report()
    place, scored = next((i, r.parity) for i, r in enumerate(whole.rows) if isinstance(r.parity, ParityReport))
    assert scored.scores is not None
    classes = tuple(
        ClassScore(index=index, name="", n=scored.n // 2, reference=scored.top1_reference, found=scored.top1)
        for index in range(2)
    )
    whole = codec.to_json(whole)
    at = f"rows.{place}.parity.scores.classes"
    whole = put(whole, at, codec.to_json(replace(scored.scores, classes=classes))["classes"])
    plausible.verify_report(codec.from_json(Report, whole), "report.json")

    with pytest.raises(InputError, match=r"parity\.top1: expected .*, as the recalls of the classes give, found "):
        plausible.verify_report(codec.from_json(Report, put(whole, f"{at}.0.found", 0.5)), "report.json")


def test_a_file_of_another_hash_than_its_engine_s_is_refused() -> None:
    engine = row("int8", "onnxruntime")
    assert engine.artifact is not None
    parts = ((engine.artifact.sha256, ".onnx", 6, "a" * 64),)
    whole = made(engine, parts=parts, version=library_version("deploykit"))

    with pytest.raises(InputError, match=r"artifact\.sha256: expected a{64}, as in parts, found "):
        plausible.verify_report(whole, "report.json")


def test_fewer_flips_than_images_lost_and_won_are_refused() -> None:
    whole = put(put(codec.to_json(page_report()), "rows.4.parity.flips.n", 10), "rows.4.parity.agreement", 0.999)

    with pytest.raises(InputError, match=r"flips\.n: expected at least the 37 images lost and won, found 10"):
        plausible.verify_report(codec.from_json(Report, whole), "report.json")


def test_a_drop_that_is_no_number_is_none_that_contradicts_itself() -> None:
    nan = float("nan")
    unscored = parity("int8 · onnxruntime", drop_pp=nan, drop_pp_interval=nan, top1=None, top1_reference=None)
    drop = Drop(what="mean AUROC", points=nan, low=nan, high=nan)

    plausible.verify_report(made(row("int8", "onnxruntime", parity=replace(unscored, drop=drop))), "report.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drift": ""}, "drift: expected '50 % slower from round 7 of 12 on', as the samples give, found ''"),
        ({"loadgen": LOADGEN}, "invalid: expected why, as LoadGen says INVALID, found none"),
    ],
)
def test_findings_of_a_measurement_that_were_taken_away_are_refused(changes: dict[str, Any], words: str) -> None:
    measured = replace(
        measurement("int8 · onnxruntime", tuple(ms + place / 1000 for ms in (2, 3) for place in range(6))),
        rounds=tuple(range(12)),
        drift="50 % slower from round 7 of 12 on",
        environment=replace(HERE, versions=(("deploykit", library_version("deploykit")),)),
    )
    plausible.verify_measurement(measured, "report.json")
    plausible.verify_measurement(replace(measured, **changes, environment=HERE), "another version judges otherwise")

    with pytest.raises(InputError, match=words):
        plausible.verify_measurement(replace(measured, **changes), "report.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"origin": {"checkpoint_sha256": "0" * 64}}, r"differ in origin\.checkpoint_sha256: c{64} and 0{64}"),
        ({"origin": {"answers_sha256": "0" * 64}}, r"differ in origin\.answers_sha256: b{64} and 0"),
        ({"origin": {"images_sha256": "0" * 64}}, r"differ in origin\.images_sha256: d{64} and 0"),
        ({"origin": {"max_drop": 0.0}}, r"differ in origin\.max_drop: 0\.25 and 0\.0"),
        ({"origin": {"accuracy": "accepted (SQNR ≥ 99 dB)"}}, r"differ in origin\.accuracy: "),
        ({"origin": {"images": "other"}}, r"differ in origin\.images: bundled:some and other"),
        ({"precision": "fp32"}, r"differ in precision: int8 and fp32"),
        ({"preprocess": replace(TINY_PREPROCESS, mean=(0.0,))}, r"differ in preprocess: "),
        ({"origin": {"max_drop": None, "images_sha256": ""}}, ""),  # of an earlier version
    ],
)
def test_a_passport_beside_the_record_must_say_what_the_record_says(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    found, file, passport = delivered_beside(tmp_path)
    assert deliver.verify_passports(found, tmp_path) == 1
    origin = replace(passport.origin, **changes.pop("origin", {}))
    passports.passport_of(file).write_text(passports.sealed(replace(passport, origin=origin, **changes)))

    with pytest.raises(InputError, match=said) if said else nullcontext():
        assert deliver.verify_passports(found, tmp_path) == 1


def test_a_passport_that_cannot_be_relied_on_is_not_passed_over(tmp_path: Path) -> None:
    found, file, _ = delivered_beside(tmp_path)
    beside = passports.passport_of(file)
    whole = beside.read_text()
    for text, said in (
        (whole.replace("bundled:some", "bundled:any"), "was changed since it was written"),
        ("{", "cannot be read"),
        (json.dumps({k: v for k, v in json.loads(whole).items() if k != "record_sha256"}), "has no record_sha256"),
    ):
        beside.write_text(text)
        with pytest.raises(InputError, match=said):
            deliver.verify_passports(found, tmp_path)
    beside.unlink()

    assert deliver.verify_passports(found, tmp_path) == 0


def delivered_beside(folder: Path) -> tuple[Report, Path, Artifact]:
    """Write one engine's file and its passport; return their report, the file and the passport."""
    file = folder / "some-int8.onnx"
    file.write_bytes(b"engine")
    engine = artifact("int8", "onnxruntime", sha256=sha256_of(file))
    checked = row("int8", "onnxruntime", artifact=engine, parity=parity(LABEL, limits=Limits(max_drop=0.25)))
    found = made(checked, delivered=((checked.label, file.name),))
    found = replace(found, answers=replace(found.answers, images_sha256="d" * 64))
    assert isinstance(checked.parity, ParityReport)
    passport = replace(engine, origin=deliver._origin(found, engine, checked.parity))
    passports.passport_of(file).write_text(passports.sealed(passport))
    return found, file, passport


def test_a_delivered_file_beside_the_record_must_be_the_one_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "some-int8.onnx").write_bytes(b"engine")
    engine = row("int8", "onnxruntime")
    assert engine.artifact is not None
    digest = sha256_of(tmp_path / "some-int8.onnx")
    parts = ((engine.artifact.sha256, ".onnx", 6, digest),)
    found = made(engine, delivered=((engine.label, "some-int8.onnx"),), parts=parts)

    assert plausible.verify_delivered(found, tmp_path) == 1
    assert plausible.verify_delivered(found, tmp_path / "elsewhere") == 0  # absent: there is nothing to compare
    (tmp_path / "some-int8.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match=f"expected sha256 {digest}, as the report says"):
        plausible.verify_delivered(found, tmp_path)
