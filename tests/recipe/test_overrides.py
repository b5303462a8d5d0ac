"""Recipes changed by what a user says beside them."""

from pathlib import Path

import pytest

from deploy_kit import recipe
from deploy_kit.base.errors import RecipeError
from deploy_kit.recipe import overrides

DEFAULT = recipe.load_recipe("default")


def test_a_checkpoint_of_ones_own_has_the_default_recipe() -> None:
    made = overrides.for_checkpoint("mine.pth")

    assert (made.name, made.source.checkpoint) == ("mine", "mine.pth")
    assert made.model_copy(update={"name": DEFAULT.name, "source": DEFAULT.source}) == DEFAULT


def test_what_is_not_said_stays() -> None:
    assert overrides.with_inputs(DEFAULT) == DEFAULT


def test_how_images_are_read_is_said_of_both_sets() -> None:
    made = overrides.with_inputs(
        DEFAULT, images="val/", calibration="calib/", skip_bad=True, orientation="upright", crops=10, every_image=True
    )

    assert (made.check.images, made.check.skip_bad, made.check.crops, made.check.every_image) == (
        "val/",
        True,
        10,
        True,
    )
    assert (made.quantize.calibration, made.quantize.skip_bad) == ("calib/", True)
    assert made.check.orientation == made.quantize.orientation == "upright"


def test_an_export_is_changed_key_by_key() -> None:
    made = overrides.with_export(DEFAULT, {"head": "fc"}, {"opset": 20})

    assert (made.source.head, made.export.opset) == ("fc", 20)
    assert (made.source.checkpoint, made.export.tolerance) == (DEFAULT.source.checkpoint, DEFAULT.export.tolerance)


def test_a_key_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown key 'opsets'") as caught:
        overrides.with_export(DEFAULT, {}, {"opsets": 20})

    assert caught.value.hint == "did you mean 'opset'?"


def test_passes_are_replaced() -> None:
    assert overrides.with_passes(DEFAULT, ("fold_constants",)).simplify.passes == ("fold_constants",)


def test_a_duration_takes_the_place_of_runs() -> None:
    assert DEFAULT.bench.runs is not None

    assert overrides.with_bench(DEFAULT, {"duration_s": 5.0, "batch": None}).runs is None


def test_demo_is_a_name_with_images_where_nothing_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = recipe.load_recipe("demo")

    named = overrides.for_checkpoint("demo")
    with_others = overrides.with_inputs(named, checkpoint="demo", images="val")

    assert named.source.checkpoint == demo.source.checkpoint
    assert (named.check.images, named.quantize.calibration) == (demo.check.images, demo.quantize.calibration)
    assert with_others.check.images == "val"
    assert named.name == "demo"
    (tmp_path / "demo").mkdir()
    assert overrides.for_checkpoint("demo").source.checkpoint == "demo"
