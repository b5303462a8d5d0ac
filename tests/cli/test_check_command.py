"""``check`` as people type it: a limit on the drop, a diagnosis, and numbers with their verdict in words."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from command_line import deploykit

from deploy_kit import pipeline, recipe
from deploy_kit.cli import _units
from deploy_kit.errors import RequestError
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe
from deploy_kit.store import Store
from deploy_kit.watch import silent

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def limited(base: Recipe, **limits: float) -> Recipe:
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    data["check"]["limits"] = {"int8": limits}
    return recipe.parse(data)


@pytest.mark.parametrize(("text", "points"), [("0.3", 0.3), ("0.3pt", 0.3), ("0.3 pp", 0.3), ("1points", 1), ("0", 0)])
def test_points_are_read(text: str, points: float) -> None:
    assert _units.points("--max-drop", text) == points


@pytest.mark.parametrize(
    ("text", "hint"),
    [("0.3%", "0.3pt"), ("1 %", "1pt"), ("ten", "0.3pt"), ("-1pt", "0.3pt"), ("pt", "0.3pt"), ("nan", "0.3pt")],
)
def test_what_is_no_number_of_points_is_refused(text: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"--max-drop: expected percentage points, found '{text}'") as caught:
        _units.points("--max-drop", text)

    assert caught.value.hint == f"e.g. --max-drop {hint}"


def test_no_points_are_none() -> None:
    assert _units.points("--max-drop", None) is None


def test_a_limit_on_the_drop_is_judged_and_too_few_images_are_no_yes(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--max-drop", "5pt", "--json", "--quiet")

    found = json.loads(said.out)
    assert said.code == 1
    assert found["limits"] == {
        "min_sqnr_db": 5.0, "min_cosine": None, "max_error": None, "min_agreement": None, "max_drop": 5.0,
        "min_top1": None, "max_ece_shift": None,
    }  # fmt: skip
    assert found["drop"]["high"] > 5
    assert found["consistency"]["n"] == 10
    assert len(found["scores"]["classes"]) == 4


def test_the_limit_of_the_command_line_is_not_that_of_the_next_call(kept: Store) -> None:
    deploykit("check", "--store", kept.root, "--max-drop", "5pt", "--quiet")

    assert deploykit("check", "--store", kept.root, "--quiet").code == 0


def test_a_percentage_is_refused_as_a_limit(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--max-drop", "0.3%")

    assert (said.code, said.error) == (2, "error: --max-drop: expected percentage points, found '0.3%'")
    assert said.fix == "  fix: e.g. --max-drop 0.3pt"


def test_the_main_numbers_are_told_with_the_verdict_last(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--quiet")

    whats = [line.split("  ")[0] for line in said.out.splitlines()]
    assert whats == [
        "engine", "images", "SQNR", "cosine", "largest logit error", "top-1 agreement", "top-1", "top-1 drop",
        "McNemar", "flips", "calibration error", "worst class", "consistency", "verdict",
    ]  # fmt: skip


def test_a_diagnosis_is_told_on_request(kept: Store) -> None:
    said = deploykit("check", "--store", kept.root, "--diagnose", "--quiet")

    told = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert "other ways to prepare the images is better beyond noise" in told["diagnosis"]
    assert told["tried"].strip().startswith("best of ")


@pytest.mark.parametrize(("limits", "asked"), [({"min_top1": 0.9}, True), ({"min_top1": 0.01}, False), ({}, False)])
def test_a_checkpoint_that_scores_below_its_own_limit_is_diagnosed(
    line: "Line", kept: Store, limits: dict[str, float], asked: bool
) -> None:
    run = Run(recipe=limited(line.recipe, **limits), store=kept, host=line.link, link=line.link, watch=silent)

    found = pipeline.diagnosed(run, line.exported, line.answers)

    assert (found is not None) is asked
