"""``check`` as people type it: a limit on the drop, a diagnosis, and numbers with their verdict in words."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command_line import deploykit
from stage_inputs import run_of

from deploy_kit import pipeline, recipe
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _quantities
from deploy_kit.recipe import Recipe
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def limited(base: Recipe, **limits: float) -> Recipe:
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    data["check"]["limits"] = {"int8": limits}
    return recipe.parse_recipe(data)


@pytest.mark.parametrize(("text", "points"), [("0.3", 0.3), ("0.3pt", 0.3), ("0.3 pp", 0.3), ("1points", 1), ("0", 0)])
def test_points_are_read(text: str, points: float) -> None:
    assert _quantities.points("--max-drop", text) == points


@pytest.mark.parametrize(
    ("text", "hint"),
    [("0.3%", "0.3pt"), ("1 %", "1pt"), ("ten", "0.3pt"), ("-1pt", "0.3pt"), ("pt", "0.3pt"), ("nan", "0.3pt")],
)
def test_what_is_no_number_of_points_is_refused(text: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"--max-drop: expected percentage points, found '{text}'") as caught:
        _quantities.points("--max-drop", text)

    assert caught.value.hint == f"e.g. --max-drop {hint}"


def test_no_points_are_none() -> None:
    assert _quantities.points("--max-drop", None) is None


@pytest.mark.slow
def test_a_limit_on_the_drop_is_judged_and_too_few_images_are_no_yes(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--max-drop", "5pt", "--json", "--quiet")

    found = json.loads(said.out)
    assert said.code == 6
    assert found["limits"] == {
        "min_sqnr_db": 5.0, "min_cosine": None, "max_error": None, "min_agreement": None, "max_drop": 5.0,
        "min_top1": None, "max_ece_shift": None,
    }  # fmt: skip
    assert found["drop"]["high"] > 5
    assert found["consistency"]["n"] == 10
    assert len(found["scores"]["classes"]) == 4


@pytest.mark.slow
def test_the_limit_of_the_command_line_is_not_that_of_the_next_call(kept: Store) -> None:
    deploykit("check", "--store", kept.root, "--max-drop", "5pt", "--quiet")

    assert deploykit("check", "--store", kept.root, "--quiet").code == 0


def test_a_percentage_is_refused_as_a_limit(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--max-drop", "0.3%")

    assert (said.code, said.error) == (2, "error: --max-drop: expected percentage points, found '0.3%'")
    assert said.fix == "  fix: e.g. --max-drop 0.3pt"


@pytest.mark.slow
def test_the_main_numbers_are_told_with_the_verdict_last(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--quiet")

    whats = [line.split("  ")[0] for line in said.out.splitlines()]
    assert whats == [
        "engine", "images", "compared with", "SQNR", "cosine", "largest logit error", "top-1 agreement", "top-1",
        "top-1 drop", "McNemar", "flips", "calibration error", "worst class", "consistency", "limits", "accuracy",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_diagnosis_is_told_on_request(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--diagnose", "--quiet")

    told = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert "other ways to prepare the images is better beyond noise" in told["diagnosis"]
    assert told["tried"].strip().startswith("best of ")


@pytest.mark.parametrize(("limits", "asked"), [({"min_top1": 0.9}, True), ({"min_top1": 0.01}, False), ({}, False)])
def test_a_checkpoint_that_scores_below_its_own_limit_is_diagnosed(
    line: "Line", kept: Store, limits: dict[str, float], asked: bool
) -> None:
    run = run_of(limited(line.recipe, **limits), kept, line.connection)

    found = pipeline.diagnosed(run, line.exported, line.answers)

    assert (found is not None) is asked


@pytest.mark.slow
def test_an_engine_of_another_export_is_not_held_against_the_one_in_force(line: "Line", kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--quiet")
    assert said.code == 0, said.err
    facts = ["--input", "16x16", "--mean", "0.1", "--std", "0.9"]
    checkpoint, images = line.recipe.source.checkpoint, line.recipe.check.images
    said = deploykit("export", checkpoint, *facts, "--images", images, "--store", kept.root)
    assert said.code == 0, said.err

    said = deploykit("check", "--store", kept.root)

    assert (said.code, "no engine was built here yet from the export in force (" in said.error) == (2, True), said.err
    assert "with mean 0.1 and std 0.9" in said.error
    assert "take an earlier export up again: --recipe with the recipe.yaml of its report" in said.fix
    assert not kept.rejected(line.built("int8", "onnxruntime"))


@pytest.mark.slow
def test_images_that_lie_elsewhere_are_called_by_their_own_name(line: "Line", kept: Store, tmp_path: Path) -> None:
    again = shutil.copy(line.recipe.check.images, tmp_path / "again.npz")
    deploykit("check", "--store", kept.root, "--quiet")

    said = deploykit("check", "--store", kept.root, "--images", again, "--quiet", "--json")

    assert json.loads(said.out)["images"] == str(again)


@pytest.mark.slow
def test_what_was_said_to_a_step_that_failed_is_not_said_to_the_next(kept: Store, tmp_path: Path) -> None:
    labels = np.full(3, 9)  # the checkpoint has four classes: known only once the recipe was noted
    np.savez(tmp_path / "wrong.npz", images=np.zeros((3, 16, 16), np.uint8), labels=labels)

    said = deploykit("check", "--store", kept.root, "--images", tmp_path / "wrong.npz")
    assert (said.code, "label 9, and the checkpoint has 4 classes" in said.error) == (2, True), said.err

    said = deploykit("check", "--store", kept.root, "--quiet")
    assert said.code == 0, said.err


@pytest.mark.slow
def test_a_diagnosis_without_labels_is_refused_before_the_check(kept: Store) -> None:
    before = {path.name for path in (kept.root / "check").glob("*")} if (kept.root / "check").exists() else set()

    said = deploykit("check", "--store", kept.root, "--images", "synthetic", "--diagnose")

    assert (said.code, "expected labelled images to diagnose with" in said.error) == (2, True), said.err
    assert {path.name for path in (kept.root / "check").glob("*")} == before


@pytest.mark.slow
def test_where_nothing_is_asked_the_verdict_says_so(line: "Line", kept: Store, tmp_path: Path) -> None:
    data = line.recipe.model_dump(mode="json", exclude_none=True)
    data["check"]["limits"] = {"fp32": {"min_cosine": 0.5}}
    (tmp_path / "loose.yaml").write_text(recipe.dump_recipe(recipe.parse_recipe(data)))

    said = deploykit("check", "--store", kept.root, "--recipe", tmp_path / "loose.yaml", "--quiet")

    assert "nothing is asked of int8: recipe.check.limits has no row 'int8'" in said.out


def test_where_two_differ_takes_no_limit(kept: Store) -> None:
    said = deploykit(
        "check", "--store", kept.root, "--layers", "checkpoint", "int8", "--max-drop", "0.1pt", "--diagnose"
    )

    assert (said.code, said.out) == (2, "")
    assert said.error.endswith("it cannot be combined with --max-drop, --diagnose")
