"""What single steps work on where a checkpoint was exported more than once, and that they say so."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import Said, deploykit

from deploy_kit.records.artifacts import Exported
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytestmark = pytest.mark.slow
pytest_plugins = ["tiny_line"]

FIRST = "images of 16×16 px, gray; (pixel / 255 - mean) / std with mean 0.25 and std 0.5"
SECOND = FIRST.replace("0.25", "0.75")
FAST = ("--rounds", "2", "--runs", "1", "--warmup", "10ms")


@pytest.fixture(scope="module")
def twice(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Said]":
    """Steps after one export of a checkpoint, and after a second with another mean."""
    store, given = tmp_path_factory.mktemp("twice") / "store", line.recipe.source.checkpoint

    def step(*arguments: str | Path) -> Said:
        said = deploykit(*arguments, "--store", store)
        assert said.code in (0, 6), said.err  # 6: this machine is busy
        return said

    def export(mean: str) -> None:
        stated = ("--input", "16x16", "--mean", mean, "--std", "0.5")
        step("export", given, *stated, "--images", line.recipe.check.images)

    export("0.25")
    said = {"given": step("simplify", given), "built once": step("build", "--variant", "fp32")}
    assert len(Store(store).all(Exported, "export")) == 1
    export("0.75")
    said |= {"given the newest": step("simplify", given), "built": step("build", "--engine", "reference")}
    return said | {"benched": step("bench", "--all", *FAST), "checked": step("check", "--all")}


def test_a_step_given_a_checkpoint_takes_the_settings_of_its_last_export(twice: "dict[str, Said]") -> None:
    assert "limits and passes that ship with deploykit), and the settings of the last export\n" in twice["given"].err
    assert SECOND in twice["given the newest"].err


def test_the_input_is_named_where_a_checkpoint_was_exported_for_several(twice: "dict[str, Said]") -> None:
    assert "(pixel" not in twice["given"].err + twice["built once"].err
    assert f"): {SECOND}\n" in twice["built"].err


def test_engines_of_several_inputs_are_told_apart(twice: "dict[str, Said]") -> None:
    assert f"(fp32 · onnxruntime): {FIRST}\n" in twice["benched"].err
    assert f"(fp32 · reference): {SECOND}\n" in twice["benched"].err
    assert f"(fp32 · reference): {SECOND}\n" in twice["checked"].err
    assert FIRST not in twice["checked"].err
