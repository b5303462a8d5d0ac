"""`deploykit pack`: what it packs, what it does not, and how it says so."""

import json
from pathlib import Path

import pytest
from command_line import deploykit

from deploy_kit import recipe
from deploy_kit.store import Store

pytest_plugins = ["tiny_line"]
pytestmark = pytest.mark.slow


def test_the_newest_engine_is_packed_and_verifies(kept: Store, tmp_path: Path) -> None:
    said = deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle.zip", "--name", "mine", "--json")

    assert said.code == 0, said.err
    manifest = json.loads(said.out)
    assert (manifest["name"], manifest["engine"]["name"], manifest["precision"]) == ("mine", "onnxruntime", "int8")
    assert f"next: deploykit verify {tmp_path / 'bundle.zip'}" in said.err
    assert deploykit("verify", tmp_path / "bundle.zip").code == 0


def test_a_variant_is_chosen_by_name_and_one_that_is_not_there_is_said(kept: Store, tmp_path: Path) -> None:
    said = deploykit("pack", "--store", kept.root, "--variant", "fp32", "-o", tmp_path / "bundle", "--json")
    assert json.loads(said.out)["precision"] == "fp32"

    said = deploykit("pack", "--store", kept.root, "--variant", "int4", "-o", tmp_path / "other")
    assert said.code == 2
    assert "'int4 · any engine' was not built here yet" in said.error
    assert not (tmp_path / "other").exists()


def judged_by(kept: Store, tmp_path: Path, **limits: float) -> Path:
    """Write the recipe in force with other limits for int8."""
    entry = kept.in_force()
    assert entry is not None
    data = {**entry.recipe, "check": {**entry.recipe["check"], "limits": {"int8": limits}}}
    path = tmp_path / "strict.yaml"
    path.write_text(recipe.dump_recipe(recipe.parse_recipe(data)), encoding="utf-8")
    return path


def test_what_breaks_a_limit_is_not_packed(kept: Store, tmp_path: Path) -> None:
    strict = judged_by(kept, tmp_path, min_sqnr_db=300.0)

    said = deploykit("pack", "--store", kept.root, "--recipe", strict, "-o", tmp_path / "bundle", "--allow-undecided")

    assert said.code == 1
    assert "int8 · onnxruntime: not packed: rejected: SQNR" in said.out
    assert not (tmp_path / "bundle").exists()


def test_what_the_images_leave_open_is_packed_only_knowingly(kept: Store, tmp_path: Path) -> None:
    strict = judged_by(kept, tmp_path, max_drop=0.5)
    call = ("pack", "--store", kept.root, "--recipe", strict, "-o", tmp_path / "bundle")

    said = deploykit(*call)
    assert said.code == 6
    assert "not packed: undecided: too few images to tell" in said.out

    assert deploykit(*call, "--allow-undecided").code == 0
    assert "| verdict | undecided: too few images to tell" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--name", "a/b"), "name: expected letters"),
        (("--golden", "0"), "expected 1 to 256, found 0"),
        (("--sign", "nowhere.pem"), "nowhere.pem: no such key"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    kept: Store, tmp_path: Path, more: tuple[str, str], said: str
) -> None:
    found = deploykit("pack", "--store", kept.root, "-o", tmp_path / "bundle", *more)

    assert found.code == 2
    assert said in found.error
