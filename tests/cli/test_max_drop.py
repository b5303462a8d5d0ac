"""``quantize --max-drop``: what it prints and keeps, how it ends, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from command_line import deploykit
from mixes import MIX
from tiny_densenet import save_images, tiny_recipe

from deploy_kit import recipe
from deploy_kit.analysis import budget
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _mixed_precision, _quantities
from deploy_kit.quantization.variant_choice import keep_float
from deploy_kit.recipe import Variant
from deploy_kit.records.artifacts import ReferenceLogits
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, tuning images, and a store with the export."""
    folder = tmp_path_factory.mktemp("max-drop")
    made = tiny_recipe(folder)
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(made))
    save_images(folder / "tune.npz", 16, seed=7)
    return folder


def quantize(folder: Path, *more: str, tune: str = "tune.npz"):  # type: ignore[no-untyped-def]
    given = ("--recipe", folder / "tiny.yaml", "--store", folder / "store", "--tune", folder / tune, *more)
    return deploykit("quantize", "--int8", "--target", "reference", *given)


def test_a_budget_that_holds_gives_a_graph_and_the_way_to_it(folder: Path) -> None:
    said = quantize(folder, "--max-drop", "100pt", "--json", "--out", str(folder / "out.onnx"))

    assert said.code == 0
    found = json.loads(said.out)
    assert (found["artifact"]["precision"], found["artifact"]["name"]) == ("int8", "int8")
    assert found["mix"]["artifact"] == found["artifact"]["sha256"]
    assert [row["precision"] for row in found["mix"]["decisions"]] == ["int8"] * 7
    assert Store(folder / "store").all(Mix, "budget")[0].trials == 1
    assert (folder / "out.onnx").is_file()


def test_a_budget_that_nothing_keeps_ends_with_1_and_keeps_no_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = budget.find_mix
    monkeypatch.setattr(
        budget,
        "find_mix",
        lambda *given: dataclasses.replace(find(*given), found=False, remark="more images would help"),
    )

    said = quantize(folder, "--max-drop", "99pt", "--out", str(folder / "none.onnx"))

    assert said.code == 1
    assert "budget              99 points: not kept" in said.out
    assert "remark              more images would help" in said.out
    assert not (folder / "none.onnx").exists()


def test_kept_groups_are_in_the_passport(folder: Path) -> None:
    given = ("--recipe", folder / "tiny.yaml", "--store", folder / "store", "--keep", "denseblock2", "--keep", "stem")

    said = deploykit("quantize", "--int8", *given, "--explain")

    assert said.code == 0
    assert "layer groups kept in float  denseblock2, stem" in said.out
    block = next(line for line in said.out.splitlines() if line.startswith("block 2"))
    assert "fp32" in block
    assert "2 float" in block


def test_an_unknown_group_ends_with_2_and_the_nearest(folder: Path) -> None:
    given = ("--recipe", folder / "tiny.yaml", "--store", folder / "store", "--keep", "denseblock2.denselayer7")

    said = deploykit("quantize", "--int8", *given)

    assert said.code == 2
    assert said.error == "error: no layer group is called 'denseblock2.denselayer7' here"
    assert "did you mean 'denseblock2.denselayer" in said.fix


def test_check_images_are_refused_as_tuning_images(folder: Path) -> None:
    said = quantize(folder, "--max-drop", "1pt", tune="check.npz")

    assert said.code == 2
    assert "24 images are both in the tuning set" in said.error


def test_too_few_tuning_images_are_refused_before_anything_computes(folder: Path) -> None:
    save_images(folder / "few.npz", 12, seed=8)

    said = quantize(folder, "--max-drop", "1pt", tune="few.npz")

    assert said.code == 2
    assert said.error == "error: 12 images cannot show a drop of at most 1 points, even if no answer changed"
    assert all("few" not in logits.images for logits in Store(folder / "store").all(ReferenceLogits, "answers"))


def test_tuning_without_a_budget_is_refused(folder: Path) -> None:
    said = quantize(folder)

    assert said.code == 2
    assert said.error == "error: --tune, --tune-masks and --time-limit apply to --max-drop and --sensitivity only"


@pytest.mark.parametrize(("text", "points"), [("0.3pt", 0.3), ("0.3pp", 0.3), ("1", 1.0), ("0.25 points", 0.25)])
def test_points_are_read(text: str, points: float) -> None:
    assert _quantities.points("--max-drop", text) == points


@pytest.mark.parametrize(("text", "meant"), [("3%", "3"), ("-1pt", "0.3"), ("pt", "0.3"), ("nan", "0.3")])
def test_what_is_no_number_of_points_is_refused(text: str, meant: str) -> None:
    with pytest.raises(RequestError, match=f"--max-drop: expected percentage points, found '{text}'") as caught:
        _quantities.points("--max-drop", text)

    assert caught.value.hint == f"e.g. --max-drop {meant}pt"


def test_a_scheme_that_cannot_mix_is_refused() -> None:
    with pytest.raises(RequestError, match="scheme 'int8_ort' cannot leave layer groups in float"):
        keep_float(Variant(name="int8-ort", scheme="int8_ort"), ["stem"])


def test_a_mix_has_a_name_of_its_own() -> None:
    variant = Variant(name="int8", scheme="int8_portable", options={"form": "max"})

    mixed = keep_float(variant, ("stem",))

    assert (mixed.name, mixed.options) == ("int8-mixed", {"form": "max", "keep": ["stem"]})
    assert keep_float(mixed, ("stem", "head")).name == "int8-mixed"
    assert keep_float(variant, ()) is variant


def test_a_recipe_may_keep_groups(folder: Path) -> None:
    data = yaml.safe_load((folder / "tiny.yaml").read_text())
    data["quantize"]["variants"].append({"name": "mixed", "scheme": "int8_portable", "options": {"keep": ["stem"]}})

    assert recipe.parse_recipe(data).quantize.variants[-1].options == {"keep": ["stem"]}


def test_the_screen_has_the_kept_groups_and_totals() -> None:
    rows = dict(_mixed_precision.summary_rows(MIX))

    assert rows["in float"] == "1 of 2 groups: denseblock1.denselayer1"
    assert rows["this mix"] == "+0.05, at most +0.21"
    assert "estimate" in rows["latency"]
    assert "stem" not in _mixed_precision.decision_table(MIX, only_float=True)
    assert "stem" in _mixed_precision.decision_table(MIX, only_float=False)
