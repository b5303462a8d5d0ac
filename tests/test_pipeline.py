"""The straight line: every target has its row, a second run costs nothing, and one failure is only its own."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from page_records import difference
from stage_inputs import run_of
from stand_ins import PretendLink
from tiny_densenet import tiny_model

from deploy_kit import pipeline, recipe
from deploy_kit.analysis import doctor
from deploy_kit.base import lazy
from deploy_kit.base.errors import DeployKitError, DeviceError, EngineCrashError, InputError, MissingPackageError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.devices import links
from deploy_kit.engines import _cuda
from deploy_kit.images import open_set
from deploy_kit.measure import race
from deploy_kit.recipe import Recipe
from deploy_kit.records import first_page
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.difference import NetworkDifference
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.measurements import Measurement, NotRun
from deploy_kit.records.results import ParityReport, Report, Simplified
from deploy_kit.stages import check
from deploy_kit.store import Key, Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = pytest.mark.slow

ACCEPTED = {"fp32": "accepted (agreement ≥ 100 %)", "int8": "accepted (SQNR ≥ 5 dB)"}
QUICK = {"rounds": 3, "runs": 2, "warmup_s": 0.01}


def changed(base: Recipe, **tables: dict[str, Any]) -> Recipe:
    """Give a recipe with some keys of some tables replaced, and a bench that takes no time."""
    data = base.model_dump(mode="json", exclude_none=True)
    data["bench"] |= QUICK
    for table, value in tables.items():
        data[table] |= value
    return recipe.parse_recipe(data)


def deployed(of: Recipe, store: Store, **options: Any) -> Report:
    return pipeline.deploy(of, links.LOCAL, store, **options)


def verdicts(report: Report) -> dict[str, str]:
    return {row.label: row.verdict for row in report.rows}


@pytest.fixture(scope="module")
def shelf(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the tiny recipe is deployed by `first`."""
    folder = tmp_path_factory.mktemp("pipeline") / "store"
    shutil.copytree(line.snapshot, folder)
    return Store(folder, line.store.recipe)


@pytest.fixture(scope="module")
def heard() -> list[ProgressEvent]:
    """What `first` told on its way."""
    return []


@pytest.fixture(scope="module")
def first(line: "Line", shelf: Store, heard: list[ProgressEvent]) -> Report:
    return deployed(line.recipe, shelf, on_progress=heard.append)


@pytest.fixture(scope="module")
def second(line: "Line", shelf: Store, first: Report) -> Report:
    return deployed(line.recipe, shelf)


def test_every_target_of_the_recipe_has_its_row(first: Report) -> None:
    assert [row.label for row in first.rows] == ["fp32 · onnxruntime", "int8 · onnxruntime"]


def test_every_engine_that_keeps_its_limits_is_accepted(first: Report) -> None:
    assert verdicts(first) == {"fp32 · onnxruntime": ACCEPTED["fp32"], "int8 · onnxruntime": ACCEPTED["int8"]}
    assert first.passed


def test_the_reference_accuracy_is_that_of_torch(line: "Line", first: Report) -> None:
    labels = open_set(line.recipe.check.images, line.lean.preprocess).labels
    logits = tiny_model()(torch.from_numpy(line.inputs())).numpy()

    parity = first.rows[0].parity

    assert isinstance(parity, ParityReport)
    assert parity.top1_reference == pytest.approx(np.mean(logits.argmax(1) == labels))


def test_every_row_is_measured_in_one_run(first: Report) -> None:
    counts = [len(row.measurement.samples_ms) for row in first.rows if isinstance(row.measurement, Measurement)]

    assert counts == [15, 15]


def test_speed_up_is_against_the_baseline_and_the_baseline_has_none(first: Report) -> None:
    one, other = first.rows

    assert one.speed_up is None
    assert other.speed_up is not None
    assert other.speed_up.baseline == "fp32 · onnxruntime"


def test_the_lineage_leads_from_the_checkpoint_to_every_engine(first: Report) -> None:
    made = {first.checkpoint.sha256}

    for artifact in (*first.lineage, *(row.artifact for row in first.rows if row.artifact)):
        assert artifact.parent in made
        made.add(artifact.sha256)


def test_every_pass_of_the_recipe_has_its_row(line: "Line", first: Report) -> None:
    assert tuple(row.name for row in first.passes) == line.recipe.simplify.passes


def test_every_stage_is_timed(first: Report) -> None:
    assert {time.stage for time in first.times} == {"export", "simplify", "quantize", "build", "check", "bench"}


def test_progress_is_told(heard: list[ProgressEvent], first: Report) -> None:
    assert {event.stage for event in heard} >= {"check", "bench"}


def test_a_second_run_takes_everything_from_the_store(second: Report) -> None:
    assert [time.reused for time in second.times] == [True] * len(second.times)


def test_a_second_run_gives_the_same_rows(first: Report, second: Report) -> None:
    assert second.rows == first.rows


def test_fresh_measures_again_and_nothing_else(line: "Line", shelf: Store, second: Report) -> None:
    report = deployed(line.recipe, shelf, fresh=True)

    assert {time.stage for time in report.times if not time.reused} == {"bench"}


def test_collecting_from_the_store_gives_the_same_rows(line: "Line", shelf: Store, first: Report) -> None:
    report = pipeline.collect(run_of(line.recipe, shelf, line.connection), line.exported)

    assert {row.label: row.parity for row in report.rows} == {row.label: row.parity for row in first.rows}


def test_each_file_of_an_engine_has_the_hash_that_sha256sum_prints(line: "Line") -> None:
    built = line.built("fp32", "openvino")
    main = line.store.path(built)

    found = pipeline.collect(run_of(line.recipe, line.store, line.connection), line.exported)

    hashes = {file: digest for label, file, _, digest, _ in first_page.files(found) if label == built.label}
    files = {str(Path(built.path).with_suffix(ending)): main.with_suffix(ending) for ending in (".xml", ".bin")}
    assert hashes == {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def test_an_engine_that_was_checked_on_other_images_alone_says_so(line: "Line", shelf: Store, first: Report) -> None:
    checked = next(row for row in first.rows if isinstance(row.parity, ParityReport))
    data = line.recipe.model_dump(mode="json", exclude_none=True)
    data["check"]["images"] = "synthetic"

    report = pipeline.collect(run_of(recipe.parse_recipe(data), shelf, line.connection), line.exported)

    (remark,) = [remark for remark in report.remarks if remark.startswith(f"{checked.label} was checked on")]
    command = shlex.join(["deploykit", "report", "--images", line.recipe.check.images])
    assert remark == f"{checked.label} was checked on {line.recipe.check.images}, not on synthetic: {command}"


def test_a_check_from_before_its_images_changed_is_not_beside_other_answers(
    line: "Line", shelf: Store, first: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = next(row for row in first.rows if isinstance(row.parity, ParityReport))
    changed = dataclasses.replace(first.answers, n=first.answers.n + 1)
    monkeypatch.setattr(pipeline, "reference_logits", lambda *_: changed)

    report = pipeline.collect(run_of(line.recipe, shelf, line.connection), line.exported)

    assert not any(isinstance(row.parity, ParityReport) for row in report.rows)
    said = f"{checked.label} was checked on {changed.images} before its images or labels changed"
    assert said in report.remarks


@pytest.fixture(scope="module")
def troubled_store(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("troubled") / "store"
    shutil.copytree(line.snapshot, folder)
    return Store(folder, line.store.recipe)


@pytest.fixture(scope="module")
def troubled(line: "Line", troubled_store: Store) -> Report:
    """Deploy a recipe in which every target but one comes to grief, each in its own way."""
    operators = ["Conv", "Concat", "BatchNormalization"]
    variants = [
        {"name": "int8", "scheme": "int8_ort"},
        {"name": "nothing", "scheme": "int8_ort", "options": {"operators": []}},
        {"name": "deadly", "scheme": "int8_ort", "options": {"operators": operators}},
        {"name": "fp16", "scheme": "fp16"},
    ]
    engines: list[dict[str, Any]] = [
        {"engine": "tensorrt", "variants": ["int8"], "optional": True},
        {"engine": "openvino", "variants": ["deadly"]},
        {"engine": "onnxruntime", "variants": ["deadly"], "options": {"optimize": False}},
        {"engine": "onnxruntime", "variants": ["nothing", "int8", "fp32"]},
        {
            "engine": "tensorrt_rtx",
            "variants": ["fp16"],
            "options": {"compute_capabilities": ["8.9"]},
            "optional": True,
        },
    ]
    limits = {"fp32": {"min_agreement": 1.0}, "int8": {"min_sqnr_db": 500}}
    of = changed(
        line.recipe,
        quantize={"variants": variants},
        build={"engines": engines},
        check={"limits": limits},
        bench={"baseline": "fp32 · openvino"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "present", lambda package: package != "tensorrt" and lazy.present(package))
        return deployed(of, troubled_store)


def test_every_target_that_comes_to_grief_still_has_its_row(troubled: Report) -> None:
    assert [row.label for row in troubled.rows] == [
        "int8 · tensorrt",
        "deadly · openvino",
        "deadly · onnxruntime",
        "nothing · onnxruntime",
        "int8 · onnxruntime",
        "fp32 · onnxruntime",
        "fp16 · tensorrt_rtx",
    ]


def test_the_others_are_left_alone(troubled: Report) -> None:
    row = troubled.rows[5]

    assert row.verdict == ACCEPTED["fp32"]
    assert isinstance(row.measurement, Measurement)


def test_a_limit_that_is_not_kept_fails_the_deployment(troubled: Report) -> None:
    assert not troubled.passed
    assert troubled.rows[4].verdict.startswith("rejected: SQNR")


def test_an_engine_that_breaks_a_limit_is_marked_and_the_others_are_not(
    troubled: Report, troubled_store: Store
) -> None:
    marked = [row.label for row in troubled.rows if row.artifact and troubled_store.rejected(row.artifact)]

    assert marked == ["int8 · onnxruntime"]


def test_an_engine_that_fell_back_to_float_has_the_reason(troubled: Report) -> None:
    assert "carries int8, and onnxruntime computes no convolution in it" in troubled.rows[2].failed


def test_a_variant_that_cannot_be_made_has_the_reason(troubled: Report) -> None:
    assert troubled.rows[3].failed == "scheme 'int8_ort' promised int8, its graph carries fp32"


@pytest.mark.skipif(
    not importlib.metadata.version("openvino").startswith("2026.4.1"),
    reason="this segfault is known of OpenVINO 2026.4.1: pip install openvino==2026.4.1",
)
def test_a_target_that_would_segfault_has_the_reason(troubled: Report) -> None:
    assert "OV001" in troubled.rows[1].failed


def test_an_optional_engine_without_its_package_has_the_reason(troubled: Report) -> None:
    reason = "package 'tensorrt' is not installed (pip install 'deploykit[tensorrt]')"

    assert troubled.rows[0].verdict.endswith(reason)


@pytest.mark.skipif(not lazy.present("tensorrt_rtx"), reason=lazy.install_line("tensorrt_rtx"))
@pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")
def test_an_engine_for_another_machine_is_built_and_not_run(troubled: Report) -> None:
    row = troubled.rows[6]

    assert row.verdict == "not run: no NVIDIA GPU on this machine"
    assert row.artifact is not None
    assert isinstance(row.measurement, NotRun)


def test_a_target_that_failed_gets_no_number(troubled: Report) -> None:
    assert [row.measurement for row in troubled.rows[:4]] == [None] * 4


def test_a_baseline_that_was_not_measured_is_remarked(troubled: Report) -> None:
    assert any(
        remark.startswith("no speed-ups: the baseline 'fp32 · openvino' was not measured")
        for remark in troubled.remarks
    )
    assert {row.speed_up for row in troubled.rows} == {None}


def test_a_deployment_that_only_left_something_out_passes(
    line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: package != "tensorrt")
    absent = {"engine": "tensorrt", "variants": ["int8"], "optional": True}
    engines = [absent, {"engine": "onnxruntime", "variants": ["fp32"]}]

    assert deployed(changed(line.recipe, build={"engines": engines}), kept).verdict == "accepted"


ORIN = Device(name="orin", link="local", accelerator="cuda:0")


def test_an_engine_that_cannot_compute_where_the_device_does_is_left_out(line: "Line", kept: Store) -> None:
    engines = [
        {"engine": "openvino", "variants": ["fp32"]},
        {"engine": "onnxruntime", "variants": ["fp32"], "options": {"device": "cpu"}},
    ]

    report = pipeline.deploy(changed(line.recipe, build={"engines": engines}), ORIN, kept)

    assert verdicts(report) == {
        "fp32 · openvino": "left out: 'orin' computes on cuda:0, which openvino cannot",
        "fp32 · onnxruntime": ACCEPTED["fp32"],
    }


def test_a_recipe_of_which_nothing_can_compute_there_is_refused(line: "Line", tmp_path: Path) -> None:
    of = changed(line.recipe, build={"engines": [{"engine": "openvino", "variants": ["fp32", "int8"]}]})
    store = Store(tmp_path / "store")

    with pytest.raises(DeviceError) as caught:
        pipeline.deploy(of, ORIN, store)

    assert str(caught.value) == "recipe 'tiny': 'orin' computes on cuda:0, which none of its engines can"
    assert caught.value.hint == "add an engine that can, or put 'device: cpu' into the options of one"
    assert list(store.root.iterdir()) == []


def test_a_device_without_any_of_the_optional_engines_ends_it_before_any_work(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [{"engine": name, "variants": ["fp32"], "optional": True} for name in ("openvino", "onnxruntime")]
    of, store = changed(line.recipe, build={"engines": engines}), Store(tmp_path / "store")
    link = PretendLink(tmp_path, {})
    monkeypatch.setattr(link, "lacks", lambda package: f"pip install {package}")
    monkeypatch.setattr(links, "connect_device", lambda device, bare=False: contextlib.nullcontext(link))

    with pytest.raises(MissingPackageError, match="none of its engines is installed: openvino, onnxruntime") as here:
        pipeline.deploy(of, links.LOCAL, store)
    link.device = Device(name="board", link="ssh://board")
    with pytest.raises(DeviceError, match="on 'board' none of its engines is installed") as there:
        pipeline.deploy(of, link.device, store)

    assert here.value.hint == "pip install openvino; or pip install onnxruntime"
    assert there.value.hint == "on board: pip install openvino; or pip install onnxruntime"
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("kind", [EngineCrashError, DeviceError])
def test_a_target_that_fails_in_its_check_leaves_the_others_alone(
    line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch, kind: type[DeployKitError]
) -> None:
    real = check.run

    def dying(engine: Artifact, *rest: Any, **options: Any) -> Any:
        if engine.name == "int8":
            raise kind("out of memory")
        return real(engine, *rest, **options)

    monkeypatch.setattr(check, "run", dying)
    report = deployed(changed(line.recipe), kept)

    assert verdicts(report) == {"fp32 · onnxruntime": ACCEPTED["fp32"], "int8 · onnxruntime": "failed: out of memory"}


def test_a_target_that_dies_in_the_bench_leaves_the_others_alone(
    line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = race._Race._take_turn

    def dying(self: Any, racer: Any) -> None:
        if racer.entry.engine.name == "int8":
            raise EngineCrashError("int8: the worker process died in 'time' with SIGSEGV")
        real(self, racer)

    monkeypatch.setattr(race._Race, "_take_turn", dying)
    report = deployed(changed(line.recipe), kept)

    assert isinstance(report.rows[0].measurement, Measurement)
    assert not isinstance(report.rows[1].measurement, Measurement)


def test_an_engine_that_must_be_there_ends_it_before_any_work(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: package != "tensorrt")
    of = changed(line.recipe, build={"engines": [{"engine": "tensorrt", "variants": ["int8"]}]})
    store = Store(tmp_path / "store")

    with pytest.raises(MissingPackageError, match="engine 'tensorrt' needs the package 'tensorrt'"):
        deployed(of, store)

    assert list(store.root.iterdir()) == []


def test_a_check_set_that_calibrated_ends_it(line: "Line", kept: Store) -> None:
    of = changed(line.recipe, quantize={"calibration": line.recipe.check.images})

    with pytest.raises(InputError, match="24 images are both in the calibration set"):
        deployed(of, kept)


def test_what_is_to_be_known_of_the_images_stands_in_the_report_once(line: "Line", store: Store) -> None:
    run = run_of(line.recipe, store, line.connection)
    answers = dataclasses.replace(
        line.answers, made_by=MadeBy(versions=(("torch", "2"),), left_out="a.png: not readable")
    )
    few = tuple(
        dataclasses.replace(line.lean, name=name, made_by=MadeBy(calibration_remarks="9 images are few"))
        for name in ("int8", "int8-symmetric")
    )

    report = pipeline.assemble(run, line.exported, answers, Simplified(onnx=line.lean, passes=()), [], few)

    assert report.remarks == ("left out: a.png: not readable", "calibration remarks: 9 images are few")


def test_a_recipe_that_slims_says_so_in_its_report(line: "Line", kept: Store) -> None:
    data = changed(line.recipe).model_dump(mode="json", exclude_none=True)
    data |= {"slim": {"macs": 0.8, "step": 4}}
    data["check"]["limits"] = {}
    of = recipe.parse_recipe(data)
    store = Store(kept.root, of.model_dump(mode="json"))

    report = deployed(of, store)

    assert [graph.stage for graph in report.lineage[:3]] == ["export", "simplify", "slim"]
    (remark,) = [remark for remark in report.remarks if "another network" in remark]
    assert all(("slimmed", remark) in row.artifact.made_by.rows for row in report.rows if row.artifact is not None)
    assert [time.stage for time in report.times].count("slim") == 1
    collected = pipeline.collect(run_of(of, store, line.connection), line.exported)
    assert remark in collected.remarks
    assert {row.label for row in collected.rows} >= {row.label for row in report.rows}


def test_the_newest_difference_of_each_file_of_a_report_is_collected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, (digest, label) in enumerate([("a" * 64, "old"), ("a" * 64, "new"), ("b" * 64, "of another")]):
        found = dataclasses.replace(difference(label), sha256=("c" * 64, digest))
        key = Key(stage="difference", name="difference", inputs=(str(number),), options=None, versions=())
        store.produce(NetworkDifference, key, lambda folder, home, found=found: found)

    assert [one.second for one in pipeline.differences_of(store, {"a" * 64})] == ["new"]
