"""Ten crops down the line: the checkpoint's answers and an engine's are both averaged over them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_inputs import images_of
from tiny_densenet import TINY_PREPROCESS, save_images, save_tiny, tiny_model

from deploy_kit import images, recipe
from deploy_kit.base.errors import InputError, RecipeError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import open_set
from deploy_kit.recipe import BuildEntry, CheckTable, ExportTable, SimplifyTable, SourceTable
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import build, check, export, reference, simplify
from deploy_kit.store import Store

RESIZED = dataclasses.replace(TINY_PREPROCESS, resize=20)


def test_answers_of_ten_crops_are_the_mean_of_torchs_logits(
    tmp_path: Path, store: Store, connection: Connection
) -> None:
    model, pictures = tiny_model(), str(save_images(tmp_path / "check.npz", 3, size=24))
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "tiny.safetensors", model, RESIZED)))

    answers, _ = reference.run(
        source, RESIZED, Context(store=store, connection=connection), images=open_set(pictures, RESIZED), crops=10
    )

    crops = np.concatenate(list(images.open_set(pictures, RESIZED).batches(RESIZED, 3, 10)))
    wanted = model(torch.from_numpy(crops)).numpy().reshape(3, 10, -1).mean(1)
    with np.load(store.root / answers.path) as data:
        np.testing.assert_allclose(data["logits"], wanted, atol=1e-5)
    assert answers.crops == 10


@pytest.mark.slow
def test_an_engine_is_checked_on_the_crops_of_its_answers(tmp_path: Path, store: Store, connection: Connection) -> None:
    pictures = str(save_images(tmp_path / "check.npz", 6, size=24))
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "tiny.safetensors", tiny_model(), RESIZED)))
    exported, _ = export.run(
        source, ExportTable(tolerance=1e-5), Context(store=store, connection=connection), images=images_of(pictures)
    )
    lean, _ = simplify.run(
        exported.onnx, SimplifyTable(passes=("fold_batchnorm",)), Context(store=store, connection=connection)
    )
    engine, _ = build.run(
        lean.onnx, BuildEntry(engine="onnxruntime", variants=("fp32",)), Context(store=store, connection=connection)
    )
    reports = []
    for crops in (1, 10):
        answers, _ = reference.run(
            source,
            RESIZED,
            Context(store=store, connection=connection),
            images=open_set(pictures, RESIZED),
            crops=crops,
        )  # type: ignore[arg-type]
        report, _ = check.run(
            engine,
            CheckTable(images=pictures, limits={}),
            Context(store=store, connection=connection),
            reference=answers,
            images=images_of(answers.images, skip_bad=answers.skipped > 0),
        )
        assert isinstance(report, ParityReport)
        reports.append(report)

    assert min(report.sqnr_db for report in reports) > 80


def test_ten_crops_need_a_resize_beyond_the_crop(tmp_path: Path, store: Store, connection: Connection) -> None:
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "tiny.safetensors", tiny_model())))
    pictures = str(save_images(tmp_path / "check.npz", 3))

    with pytest.raises(InputError):
        reference.run(
            source,
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(pictures, TINY_PREPROCESS),
            crops=10,
        )


def test_a_recipe_takes_one_crop_or_ten(tiny: recipe.Recipe) -> None:
    data = tiny.model_dump(mode="json", exclude_none=True)
    data["check"]["crops"] = 5

    with pytest.raises(RecipeError, match=r"recipe\.check\.crops"):
        recipe.parse_recipe(data)
