"""The functions of the API do what the commands do: the same store, the same results, the same refusals."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench_records import measurement
from command_line import deploykit
from tiny_densenet import save_images, save_tiny, tiny_model

import deploy_kit
from deploy_kit import Artifact, Bench, Exported, ProgressEvent, Simplified, Store
from deploy_kit.stages import bench as bench_stage

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def newest_engine(store: Store) -> Artifact:
    found = store.newest(Artifact, "build")
    assert found is not None
    return found[0]


def test_an_export_finds_what_the_line_made(line: "Line", kept: Store) -> None:
    events = list[ProgressEvent]()

    exported = deploy_kit.export(recipe=line.recipe, store=kept.root, on_progress=events.append)

    assert exported == line.exported
    assert events == []  # nothing was exported again


def test_a_command_finds_what_the_api_made(line: "Line", kept: Store) -> None:
    deploy_kit.simplify(line.exported, passes=["fold_constants"], store=kept.root)

    said = deploykit("build", "--engine", "onnxruntime", "--store", kept.root)

    assert said.code == 0, said.err
    assert len(kept.all(Simplified, "simplify")) == 2  # the line's, and the one of the API: no third one


def test_a_graph_is_simplified_before_it_is_quantized(line: "Line", kept: Store) -> None:
    quantized = deploy_kit.quantize(line.exported, scheme="int8_ort", store=kept)

    assert quantized.parent == line.lean.sha256
    assert quantized.sha256 == line.graph("int8").sha256


def test_a_simplified_graph_is_built_as_it_is(line: "Line", kept: Store) -> None:
    built = deploy_kit.build(line.lean, store=str(kept.root))

    assert built == line.built("fp32", "onnxruntime")


def test_options_of_an_engine_are_given_by_name(line: "Line", kept: Store) -> None:
    built = deploy_kit.build(line.lean, "onnxruntime", options={"optimize": False}, threads=1, store=kept)

    assert built.options == '{"device":"cpu","optimize":false,"threads":1}'


def test_a_copy_and_its_passport_are_written(line: "Line", kept: Store, tmp_path: Path) -> None:
    deploy_kit.simplify(line.exported, out=tmp_path / "simple.onnx", store=kept)

    assert (tmp_path / "simple.onnx").read_bytes() == kept.path(line.lean).read_bytes()
    assert (tmp_path / "simple.onnx.passport.json").is_file()


def test_a_copy_that_would_replace_another_file_is_refused_before_any_work(line: "Line", kept: Store) -> None:
    (mine := kept.root / "train.py").write_text("print()")

    with pytest.raises(deploy_kit.InputError, match="exists, and was not written by deploykit"):
        deploy_kit.quantize(line.exported, scheme="int8_ort", out=mine, store=kept)


def test_a_limit_that_is_not_kept_is_an_answer(kept: Store) -> None:
    report = deploy_kit.check(newest_engine(kept), max_drop=0.0, store=kept)

    assert not report.passed
    assert any("drop" in failure for failure in report.failures)


def test_a_check_uses_the_images_it_is_given(kept: Store, tmp_path: Path) -> None:
    images = save_images(tmp_path / "other.npz", 12, seed=9)

    report = deploy_kit.check(newest_engine(kept), images=images, store=kept)

    assert (report.n, report.images) == (12, str(images))


def test_an_engine_of_a_checkpoint_that_was_replaced_is_not_held_against_its_successor(
    line: "Line", kept: Store, tmp_path: Path
) -> None:
    mine = save_tiny(tmp_path / "mine.safetensors", tiny_model())
    engine = deploy_kit.build(deploy_kit.export(mine, images=line.recipe.check.images, store=kept), store=kept)
    save_tiny(mine, tiny_model(seed=1))

    with pytest.raises(deploy_kit.RequestError, match=r"not built from '.*mine\.safetensors' as it is now"):
        deploy_kit.check(engine, store=kept)


def test_what_was_made_elsewhere_is_refused(line: "Line", tmp_path: Path) -> None:
    with pytest.raises(deploy_kit.RequestError, match="was not made in this store") as caught:
        deploy_kit.build(line.lean, store=tmp_path / "empty")

    assert caught.value.hint == "give store=, the folder it was made in"


def test_the_store_of_the_environment_is_taken(line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYKIT_STORE", str(kept.root))

    assert deploy_kit.build(line.lean) == line.built("fp32", "onnxruntime")


def test_only_an_exported_graph_is_simplified(line: "Line", kept: Store) -> None:
    with pytest.raises(deploy_kit.RequestError, match="expected an exported graph, found one of stage 'simplify'"):
        deploy_kit.simplify(line.lean, store=kept)


def test_int8_without_images_says_what_is_missing(kept: Store, tmp_path: Path) -> None:
    mine = save_tiny(tmp_path / "mine.safetensors", tiny_model())

    with pytest.raises(deploy_kit.InputError, match="needs images to calibrate with"):
        deploy_kit.quantize(mine, store=kept)


def test_a_misspelt_engine_is_refused_before_any_work(line: "Line", tmp_path: Path) -> None:
    with pytest.raises(deploy_kit.UnknownNameError, match="no engine is called 'openvinno'") as caught:
        deploy_kit.build(line.lean, "openvinno", store=tmp_path / "never")

    assert caught.value.hint == "did you mean 'openvino'?"
    assert not (tmp_path / "never").exists()


def test_layer_groups_stay_in_float(line: "Line", kept: Store) -> None:
    quantized = deploy_kit.quantize(line.lean, "int8", layout="portable", keep="stem", store=kept)

    assert quantized.name == "int8-mixed"
    assert "stem" in quantized.made_by.float_groups


def test_a_mix_within_a_budget_is_found(line: "Line", kept: Store, tmp_path: Path) -> None:
    tune = save_images(tmp_path / "tune.npz", 16, seed=7)

    mixed = deploy_kit.find_mix(line.lean, 90.0, layout="portable", tune=tune, store=kept)

    assert mixed.artifact is not None and mixed.artifact.precision == "int8"
    assert mixed.mix.max_drop_pp == 90.0


def test_latencies_come_with_their_engines(kept: Store) -> None:
    engine = newest_engine(kept)

    measured = deploy_kit.bench(engine, rounds=2, runs=10, warmup=0.1, allow_invalid=True, store=kept)

    assert [(one.label, len(one.samples_ms)) for one in measured.measurements] == [(engine.label, 20)]


def test_a_measurement_that_is_not_valid_is_an_error_unless_allowed(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    engine = newest_engine(kept)
    busy = Bench(measurements=(dataclasses.replace(measurement(engine.label, [1.0]), invalid=("a busy machine",)),))
    monkeypatch.setattr(bench_stage, "run", lambda *arguments, **options: (busy, False))

    with pytest.raises(deploy_kit.MeasurementError, match="a busy machine") as caught:
        deploy_kit.bench(engine, store=kept)

    assert "allow_invalid=True" in caught.value.hint
    assert deploy_kit.bench(engine, allow_invalid=True, store=kept) is busy


def test_an_engine_that_cannot_run_here_is_an_error(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = newest_engine(kept)
    absent = Bench(
        measurements=(), not_run=(deploy_kit.NotRun(artifact=engine.sha256, label=engine.label, why="no GPU here"),)
    )
    monkeypatch.setattr(bench_stage, "run", lambda *arguments, **options: (absent, False))

    with pytest.raises(deploy_kit.DeviceError, match=f"{engine.label}: not run: no GPU here"):
        deploy_kit.bench(engine, store=kept)


def test_nothing_to_measure_is_refused(kept: Store) -> None:
    with pytest.raises(deploy_kit.RequestError, match="expected at least one engine"):
        deploy_kit.bench([], store=kept)


def test_progress_is_reported_to_a_function_and_drawn_nowhere(
    line: "Line", kept: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    events = list[ProgressEvent]()

    deploy_kit.simplify(line.exported, passes=["drop_identities"], store=kept, on_progress=events.append)
    deploy_kit.simplify(line.exported, passes=["remove_unused"], store=kept, on_progress=None)

    assert "drop_identities" in [event.text for event in events]
    assert capsys.readouterr() == ("", "")


def test_the_line_takes_a_recipe_a_device_and_a_store_as_it_always_has(line: "Line", kept: Store) -> None:
    report = deploy_kit.deploy(line.recipe, deploy_kit.find_device("local"), kept)

    assert {row.label for row in report.rows} == {"fp32 · onnxruntime", "int8 · onnxruntime"}
    assert all(row.artifact is not None for row in report.rows)


def test_a_checkpoint_is_deployed_to_engines_by_name(line: "Line", kept: Store, tmp_path: Path) -> None:
    report = deploy_kit.deploy(
        shutil.copy(line.recipe.source.checkpoint, tmp_path / "mine.safetensors"),
        store=kept.root,
        engines="onnxruntime",
        calibration=line.recipe.quantize.calibration,
        images=line.recipe.check.images,
        out=tmp_path / "reports",
    )

    assert [row.label for row in report.rows] == ["fp32 · onnxruntime", "int8 · onnxruntime"]
    assert report.rows[1].speed_up is not None and report.rows[1].speed_up.baseline == "fp32 · onnxruntime"
    assert deploy_kit.load_report(tmp_path / "reports" / "mine") == report


def test_an_export_carries_what_was_said_of_its_checkpoint_into_the_line(line: "Line", kept: Store) -> None:
    exported = deploy_kit.export(recipe=line.recipe, store=kept)
    assert isinstance(exported, Exported)

    report = deploy_kit.deploy(exported, store=kept, engines=["onnxruntime"], precisions="fp32")

    assert [row.label for row in report.rows] == ["fp32 · onnxruntime"]
    assert report.answers.images == line.recipe.check.images
