"""Tests of the flags that say what a checkpoint cannot: they reach the reader, and the recipe has the same keys."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_densenet import save_tiny, tiny_model

from deploy_kit import recipe
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import main
from deploy_kit.cli._checkpoint_options import CheckpointOptions
from deploy_kit.recipe import SourceTable

GIVEN = {
    "--state-key": "state_dict", "--head": "classifier", "--ignore": "extra", "--stem-pool": "none",
    "--concat": "prepend", "--activation": "elu", "--outer-activation": "silu", "--hidden-activation": "none",
    "--slope": "0.1", "--transition-pool": "max", "--eps": "1e-3", "--head-pool": "max", "--head-activation": "sigmoid",
    "--stem-stride": "2", "--dense-order": "activation_first", "--transition-order": "activation_first",
    "--final-order": "activation_first", "--hidden-order": "activation_first", "--hidden-eps": "1e-4",
    "--feature-norm": "l2", "--stem-activation": "leaky_relu", "--stem-slope": "0.3", "--outer-slope": "0.2",
    "--hidden-slope": "0.4",
}  # fmt: skip


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["deploykit", *arguments])
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A torch file that says nothing beside its tensors, with one module too many."""
    torch.save({"state_dict": tiny_model().state_dict() | {"extra.w": torch.zeros(2)}}, tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


def test_every_flag_reaches_the_network(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [word for pair in GIVEN.items() for word in pair]

    code, out, _ = ran(capsys, "inspect", str(bare), *flags, "--no-transition-relu", "--no-final-relu", "--json")
    spec = json.loads(out)["spec"]

    assert code == 0
    assert spec["stem"][0]["stride"] == [2, 2]
    told = {
        "stem_pool": "none", "concat": "prepend", "activation": "elu", "outer_activation": "silu",
        "transition_pool": "max", "eps": 1e-3, "head_pool": "max", "head_activation": "sigmoid",
        "transition_relu": False, "final_relu": False, "dense_order": "activation_first",
        "transition_order": "activation_first", "final_order": "activation_first", "feature_norm": "l2",
        "stem_activation": "leaky_relu", "stem_slope": 0.3, "outer_slope": 0.2, "hidden_slope": 0.4,
    }  # fmt: skip
    assert {key: spec[key] for key in told} == told


def test_slope_without_a_leaky_activation_is_refused(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["inspect", str(bare), "--ignore", "extra", "--stem-pool", "max"]

    code, _, told = ran(capsys, *known, "--outer-slope", "0.2")

    assert code == 2
    assert "--outer-slope: expected a leaky activation, found relu" in told
    assert ran(capsys, *known, "--outer-slope", "0.2", "--outer-activation", "leaky_relu")[0] == 0


def test_every_flag_is_a_key_of_the_recipes_source_table() -> None:
    keys = {flag.removeprefix("--").replace("-", "_") for flag in GIVEN} | {"transition_relu", "final_relu", "strict"}

    assert keys <= SourceTable.model_fields.keys()


def test_stride_for_each_axis_is_read() -> None:
    assert CheckpointOptions(stem_stride="1,2,2").source_table() == {"stem_stride": [1, 2, 2]}


def test_stride_that_is_no_number_is_refused() -> None:
    with pytest.raises(RequestError, match="'two': expected whole numbers") as caught:
        CheckpointOptions(stem_stride="two").source_table()

    assert "--stem-stride 2" in caught.value.hint


def test_unknown_pool_names_the_known_ones(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "inspect", str(bare), "--stem-pool", "maxx")

    assert code == 2
    assert "--stem-pool" in err and "'maxx' is not one of 'none', 'max', 'avg', 'blur'" in err


def test_strict_refuses_to_guess(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "inspect", str(bare), "--ignore", "extra", "--stem-pool", "max", "--strict")

    assert code == 2
    assert "nothing in the file decides stem_stride" in err and "--stem-stride 2" in err


def test_probe_decides_what_nothing_else_does(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "io.npz", input=x.numpy(), logits=tiny_model()(x).numpy())

    code, out, _ = ran(capsys, "inspect", str(bare), "--ignore", "extra", "--probe", str(tmp_path / "io.npz"), "--json")
    spec = json.loads(out)["spec"]

    assert (code, spec["stem_pool"]) == (0, "max")
    assert dict(spec["sources"])["stem_pool"].startswith("probe io.npz: the one match")


def test_probe_of_another_network_lists_what_was_tried(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "io.npz", input=x.numpy(), logits=tiny_model(seed=1)(x).numpy())

    flags = ["--concat", "append", "--activation", "relu", "--outer-activation", "relu", "--eps", "1e-5"]
    flags += ["--transition-relu", "--final-relu", "--transition-pool", "avg", "--head-pool", "avg"]
    code, _, err = ran(capsys, "inspect", str(bare), "--ignore", "extra", "--probe", str(tmp_path / "io.npz"), *flags)

    assert code == 2
    assert "none of 109 combinations gives these logits" in err and "tried: stem_stride, stem_pool" in err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros((1, 1, 16, 16))}, "cannot be read"),
        ({"input": np.zeros((1, 2, 16, 16)), "logits": np.ones((1, 4))}, "expected 1 channels on 2 axes and 4 classes"),
        ({"input": np.zeros((1, 1, 16, 16)), "logits": np.zeros((1, 4))}, "its logits are all zero"),
    ],
)
def test_probe_that_does_not_fit_is_refused(
    arrays: dict[str, np.ndarray], message: str, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "io.npz", **arrays)

    code, _, err = ran(capsys, "inspect", str(bare), "--ignore", "extra", "--probe", str(tmp_path / "io.npz"))

    assert code == 2
    assert message in err


def test_probe_that_does_not_exist_is_refused(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "inspect", str(bare), "--ignore", "extra", "--probe", "absent.npz")

    assert code == 2
    assert "absent.npz: no such file" in err


@pytest.mark.slow
def test_saved_recipe_says_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save_tiny(tmp_path / "tiny.safetensors", tiny_model())
    saved = tmp_path / "own.yaml"

    code, _, err = ran(
        capsys, "export", str(file), "--concat", "append", "--no-final-relu", "--store", str(tmp_path / "store"),
        "--save-recipe", str(saved), "--exporter", "torchscript",
    )  # fmt: skip
    source = recipe.load_recipe(str(saved)).source

    assert code == 0, err
    assert (source.concat, source.final_relu, source.stem_pool) == ("append", False, None)
