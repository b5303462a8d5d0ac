"""Which recipe `deploy` follows: the one given, one by name, or one made for a checkpoint."""

from pathlib import Path

import pytest
from report_records import everything

import deploy_kit
from deploy_kit import Store
from deploy_kit.api import line
from deploy_kit.base.errors import RequestError, UnknownNameError
from deploy_kit.machine import environment

DEFAULT, DEMO = deploy_kit.load_recipe("default"), deploy_kit.load_recipe("demo")


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor and a runtime on which no layout needs to be fitted."""
    import dataclasses

    here = dataclasses.replace(environment.describe_machine(), isa=("avx2", "avx512_vnni"))
    monkeypatch.setattr(environment, "describe_machine", lambda: here)
    monkeypatch.setattr(environment, "library_version", lambda name: "1.31.1")


def entries(recipe: deploy_kit.Recipe) -> dict[str, tuple[str, ...]]:
    return {entry.engine: entry.variants for entry in recipe.build.engines}


def test_a_recipe_is_followed_as_it_is() -> None:
    assert line.with_engines(DEMO, (), ()) == DEMO


def test_a_checkpoint_is_built_for_both_cpu_engines_in_float_without_images_to_calibrate_with() -> None:
    made = line.with_engines(DEFAULT, (), ())

    assert entries(made) == {"onnxruntime": ("fp32",), "openvino": ("fp32",)}
    assert made.bench.baseline == "fp32 · onnxruntime"


def test_images_to_calibrate_with_bring_int8() -> None:
    base = DEFAULT.model_copy(update={"quantize": DEFAULT.quantize.model_copy(update={"calibration": "calib/"})})

    made = line.with_engines(base, ("openvino",), ())

    assert entries(made) == {"openvino": ("fp32", "int8")}
    assert [variant.scheme for variant in made.quantize.variants] == ["int8_portable"]


def test_each_engine_gets_the_layout_it_likes() -> None:
    made = line.with_engines(DEFAULT, ("onnxruntime", "tensorrt"), ("fp16", "int8"))

    assert entries(made) == {"onnxruntime": ("fp16", "int8"), "tensorrt": ("fp16-tensorrt", "int8-tensorrt")}
    assert made.quantize.variants[2].options == {"passes": ["flatten_concats", "cast_pixels_first"]}


def test_engines_that_like_the_same_share_a_variant() -> None:
    made = line.with_engines(DEFAULT, ("onnxruntime", "openvino"), ("int8",))

    assert entries(made) == {"onnxruntime": ("int8",), "openvino": ("int8",)}
    assert len(made.quantize.variants) == 1


def test_the_options_of_a_recipes_engine_stay() -> None:
    made = line.with_engines(DEMO, ("tensorrt_rtx",), ("fp32",))

    assert made.build.engines[0].options == {"compute_capabilities": ["8.6", "8.9", "12.0"]}


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="int4"):
        line.with_engines(DEFAULT, (), ("int4",))


@pytest.mark.parametrize("source", ["demo", "bundled:demo", DEMO])
def test_a_bundled_recipe_is_meant_by_its_name(source: object, store: Store) -> None:
    assert line._recipe_for(source, {}, store) == DEMO  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["bundled:densenet_bc40_fmnist", "densenet121.pth", Path("net.onnx")])
def test_a_file_is_a_checkpoint_and_has_the_default_recipe(source: object, store: Store) -> None:
    made = line._recipe_for(source, {}, store)  # type: ignore[arg-type]

    name = str(source).rpartition(":")[2].partition(".")[0]
    assert (made.name, made.source.checkpoint) == (name, str(source))


def test_a_file_without_a_suffix_is_a_checkpoint(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"")

    assert line._recipe_for(str(tmp_path / "weights"), {}, store).name == "weights"


def test_a_misspelt_recipe_names_the_nearest(store: Store) -> None:
    with pytest.raises(UnknownNameError) as caught:
        line._recipe_for("densenet112", {}, store)

    assert caught.value.hint == "did you mean 'densenet121'?"


def test_an_input_said_beside_a_recipe_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="are said of a checkpoint") as caught:
        deploy_kit.deploy("demo", store=store, input=(28, 28), mean=0.5, std=0.5)

    assert "give them to export" in caught.value.hint


def test_a_report_is_written_and_read_back_by_file_or_folder(tmp_path: Path) -> None:
    report = everything()

    path = deploy_kit.write_report(report, tmp_path / "reports")

    assert path == tmp_path / "reports" / "report.md"
    assert deploy_kit.load_report(str(tmp_path / "reports")) == report
    assert deploy_kit.load_report(tmp_path / "reports" / "report.json") == report
