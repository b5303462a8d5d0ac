"""``--out``: a copy takes the place of an earlier copy, and of nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stage_inputs import run_of

from deploy_kit import recipe
from deploy_kit.base.errors import InputError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.cli import _output_files
from deploy_kit.cli._console import Console
from deploy_kit.engines._nvidia import passport
from deploy_kit.records.passports import verify_out

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def test_a_file_that_is_no_copy_of_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"weights")

    with pytest.raises(InputError, match=r"mine\.pth: exists, and was not written by deploykit"):
        verify_out(tmp_path / "mine.pth")

    assert (tmp_path / "mine.pth").read_bytes() == b"weights"


def test_an_earlier_copy_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "model.onnx.passport.json").write_text("{}")

    verify_out(tmp_path / "model.onnx")


def test_a_folder_that_does_not_exist_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        verify_out(tmp_path / "a b" / "model.onnx")

    assert caught.value.hint == f"mkdir -p '{tmp_path / 'a b'}'"


@pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))
def test_a_plan_copied_out_has_one_passport_that_a_session_reads(line: "Line", tmp_path: Path) -> None:
    built = line.built("fp16", "tensorrt_rtx", compute_capabilities=["8.9"])
    run = run_of(line.recipe, line.store, line.connection)

    _output_files.copy_out(run, built, tmp_path / "mine.plan", Console(quiet=True))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.plan", "mine.plan.passport.json"]
    assert passport.read_plan_passport(tmp_path / "mine.plan") == (built.built, built.proof)


def test_a_recipe_takes_the_place_of_a_recipe_and_of_nothing_else(line: "Line", tmp_path: Path) -> None:
    mine, other = tmp_path / "train.py", tmp_path / "my.yaml"
    mine.write_text("print('mine')\n")
    other.write_text(recipe.dump_recipe(line.recipe))

    with pytest.raises(InputError, match=r"train\.py: exists, and is not a recipe"):
        _output_files.verify_recipe_file(mine, line.recipe)
    with pytest.raises(InputError, match="found a folder"):
        _output_files.verify_recipe_file(tmp_path, line.recipe)
    _output_files.verify_recipe_file(other, line.recipe)
    _output_files.verify_recipe_file(tmp_path / "new.yaml", line.recipe)
