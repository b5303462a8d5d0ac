"""The file of a sweep: strict, with errors that name the place and the nearest name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_kit.base.errors import RecipeError, UnknownNameError
from deploy_kit.checkpoint.network import random_densenet
from deploy_kit.recipe import load_recipe
from deploy_kit.recipe.grid import SweepCheckpoint, load_grid
from deploy_kit.sweep.cells import base_recipe, recipe_of, unroll, verify_cells

GRID: dict[str, Any] = {
    "name": "boards",
    "checkpoints": ["a.pth", {"name": "big", "checkpoint": "b.pth", "input": [64, 64]}],
    "variants": ["fp32", "int8"],
    "engines": ["onnxruntime", "openvino"],
    "batches": [1, 8],
}


def written(folder: Path, **keys: Any) -> str:
    (folder / "sweep.yaml").write_text(yaml.safe_dump(GRID | keys))
    return str(folder / "sweep.yaml")


def test_the_grid_is_every_combination_less_what_is_excluded(tmp_path: Path) -> None:
    table = load_grid(written(tmp_path, exclude=[{"engine": "openvino", "batch": 8}, {"checkpoint": ["big"]}]))

    cells = unroll(table, {})

    assert [(c.name.batch, c.name.variant, c.name.engine) for c in cells] == [
        (1, "fp32", "onnxruntime"), (1, "fp32", "openvino"), (1, "int8", "onnxruntime"), (1, "int8", "openvino"),
        (8, "fp32", "onnxruntime"), (8, "int8", "onnxruntime"),
    ]  # fmt: skip


def test_a_cell_is_a_recipe_of_one_variant_and_one_engine(tmp_path: Path) -> None:
    table = load_grid(written(tmp_path, bench={"rounds": 6}, quantize={"calibration": "calib/"}))
    cell = unroll(table, {})[-1]

    made = recipe_of(cell, base_recipe(table), ())[0]

    assert (made.source.checkpoint, made.source.input) == ("b.pth", (64, 64))
    assert (made.export.batch, made.bench.batch, made.bench.rounds) == (8, (8,), 6)
    assert [(v.name, v.scheme) for v in made.quantize.variants] == [("int8", "int8_portable")]
    assert [(e.engine, e.variants) for e in made.build.engines] == [("openvino", ("int8",))]
    assert made.quantize.calibration == "calib/"


def test_a_dynamic_export_serves_every_batch(tmp_path: Path) -> None:
    table = load_grid(written(tmp_path, export={"dynamic": True}))

    made = [recipe_of(cell, base_recipe(table), ())[0] for cell in unroll(table, {})]

    assert {recipe.export.batch for recipe in made} == {1}
    assert {recipe.bench.batch for recipe in made} == {(1,), (8,)}


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"enginse": ["x"]}, "sweep: unknown key 'enginse'", "did you mean 'engines'?"),
        ({"checkpoints": []}, "sweep: 'checkpoints' is missing", "checkpoints: [best.pth]"),
        ({"engines": [{"engin": "onnxruntime"}]}, "sweep.engines[0]: unknown key 'engin'", "did you mean 'engine'?"),
        ({"batches": [0]}, "sweep.batches[0]: input should be greater than 0, found 0", ""),
        ({"batches": [1, 1]}, "sweep: the batch '1' occurs twice", "leave one of them out"),
        ({"engines": ["ncnn", "ncnn"]}, "sweep: the engine 'ncnn' occurs twice", "give one of them another 'name'"),
        ({"batches": [1, 10**6]}, "sweep.batches[1]: input should be less than or equal to 65536, found 1000000", ""),
        ({"export": {"batch": 4}}, "sweep.export: 'batch' would change nothing: each cell has its own",
         "list them under the sweep's 'batches'"),
        ({"bench": {"batch": [4]}}, "sweep.bench: 'batch' would change nothing: each cell has its own",
         "list them under the sweep's 'batches'"),
        ({"exclude": [{"engine": "openvin"}]}, "sweep.exclude[0].engine: the grid has no engine 'openvin'",
         "did you mean 'openvino'?"),
        ({"exclude": [{}]}, "sweep.exclude[0]: expected at least one key", "e.g. {engine: openvino, device: board}"),
        ({"budgets": [{"prefer": "fast"}]}, "sweep.budgets[0].prefer: input should be 'fastest', 'accurate' or "
         "'smallest', found 'fast'", "did you mean 'fastest'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, keys: Any, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_grid(written(tmp_path, **keys))

    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_a_name_that_no_folder_can_have_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sweep\.name: string should have at most 100 characters"):
        load_grid(written(tmp_path, name="a" * 300))


def test_a_grid_without_a_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leaves no cell"):
        unroll(load_grid(written(tmp_path, exclude=[{"batch": [1, 8]}])), {})


def test_names_are_looked_up_before_any_work(tmp_path: Path) -> None:
    def verified(**keys: Any) -> None:
        table = load_grid(written(tmp_path, **keys))
        verify_cells(unroll(table, {}), base_recipe(table))

    with pytest.raises(RecipeError, match="'int4' is neither a precision nor a variant") as unknown:
        verified(variants=["int4"])
    assert unknown.value.hint.startswith("did you mean 'int8'?")
    with pytest.raises(UnknownNameError, match="onnxruntim"):
        verified(engines=["onnxruntim"])
    with pytest.raises(RecipeError, match="unknown key 'thread'"):
        verified(engines=[{"engine": "openvino", "options": {"thread": 1}}])


def test_a_sweep_is_no_recipe_and_the_message_says_what_runs_it(tmp_path: Path) -> None:
    file = written(tmp_path)

    with pytest.raises(RecipeError, match="expected a recipe, found a sweep") as caught:
        load_recipe(file)

    assert caught.value.hint == f"deploykit sweep {file}"


def test_the_bundled_family_is_a_sweep_of_the_papers_networks() -> None:
    table = load_grid("family")
    cells = unroll(table, {name: SweepCheckpoint(name=name, checkpoint=name) for name in table.architectures})

    verify_cells(cells, base_recipe(table))

    assert {cell.name.checkpoint for cell in cells if not cell.random_weights} == {"demo-bc40-k12"}
    assert set(table.architectures) == set(random_densenet.NAMES)
    # ONNX Runtime: fp32 and INT8, OpenVINO: bf16 as well, at both batches; at batch 1 the runtime's own INT8 on both
    # and ncnn's fp32 and bf16; NNCF's INT8 of three networks.
    assert len(cells) == 9 * (2 * (2 + 3) + 2 + 2) + 3
    sets = {
        (recipe.check.images, recipe.quantize.calibration)
        for recipe in (recipe_of(cells[0], base_recipe(table), ())[0], recipe_of(cells[-1], base_recipe(table), ())[0])
    }
    assert sets == {
        ("bundled:fashion-mnist-10000", "bundled:fashion-mnist-512"),
        ("synthetic", "bundled:fashion-mnist-32"),
    }
