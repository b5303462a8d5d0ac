"""What an output means is said in Python as on the command line: a segmentation, one of two outputs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

import deploy_kit
from deploy_kit import pipeline
from deploy_kit.api import mixing
from deploy_kit.api.mixing import MixRequest
from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.recipe import Recipe
from deploy_kit.records.results import ParityReport
from deploy_kit.store import Store

SIDE, CLASSES, IGNORED = 16, 3, 255


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A network of two outputs, images, and masks: its own classes of ``maps``, a column of each not judged."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((n, m, 3, 3)).astype(np.float32) for n, m in ((8, 1), (CLASSES, 8), (1, 8))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["maps"], pads=[1] * 4),
        helper.make_node("Conv", ["r", "w2"], ["depth"], pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n, SIDE, SIDE])
            for name, n in (("depth", 1), ("maps", CLASSES))
        ],
        [numpy_helper.from_array(weight, f"w{at}") for at, weight in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    for kind in ("check", "tune"):
        pixels = random.integers(0, 256, (12, SIDE, SIDE), np.uint8)
        answers = ReferenceEvaluator(str(tmp_path / "n.onnx")).run(
            ["maps"], {"x": (pixels[:, None].astype(np.float32) / 255 - 0.5) / 0.5}
        )[0]
        masks = answers.argmax(1).astype(np.uint8)
        masks[:, :, 0] = IGNORED
        for folder, arrays in ((kind, pixels), (f"{kind}-masks", masks)):
            (tmp_path / folder).mkdir()
            for at, array in enumerate(arrays):
                Image.fromarray(array).save(tmp_path / folder / f"{at}.png")
    return tmp_path


def said(there: Path, store: Store) -> dict[str, Any]:
    return {
        "input": (SIDE, SIDE), "mean": 0.5, "std": 0.5, "output": "maps", "images": there / "check", "store": store,
    }  # fmt: skip


def judged(there: Path, store: Store, **task: Any) -> ParityReport:
    exported = deploy_kit.export(there / "n.onnx", **said(there, store))
    return deploy_kit.check(deploy_kit.build(exported, store=store), masks=there / "check-masks", store=store, **task)


def test_an_engine_of_one_output_is_checked_by_its_masks(there: Path, store: Store) -> None:
    report = judged(there, store, task="segment", ignore_index=IGNORED)

    assert report.task is not None
    assert (report.task.task, report.task.source, report.task.reference) == ("segment", "stated", 1.0)


def test_masks_with_a_number_that_is_no_class_need_the_index_that_is_ignored(there: Path, store: Store) -> None:
    with pytest.raises(InputError, match="255"):
        judged(there, store)


def test_the_line_is_told_of_task_masks_and_output(there: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []
    monkeypatch.setattr(pipeline, "deploy", lambda recipe, *_, **__: asked.append(recipe))

    deploy_kit.deploy(
        there / "n.onnx", task="segment", masks=there / "check-masks", ignore_index=IGNORED, **said(there, store)
    )

    assert asked[0].source.output == "maps"
    table = asked[0].check
    assert (table.task, table.masks, table.ignore_index) == ("segment", str(there / "check-masks"), IGNORED)


def test_an_output_said_beside_a_recipe_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="input, mean, std and output are said of a checkpoint"):
        deploy_kit.deploy("demo", store=store, output="maps")


def test_the_search_of_a_mix_is_told_of_the_masks_of_its_images(
    there: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Recipe, MixRequest]] = []

    def searched(run: pipeline.Run, graph: object, variant: object, request: MixRequest, remark: object) -> Any:
        asked.append((run.recipe, request))
        return SimpleNamespace(artifact=None)

    monkeypatch.setattr(mixing, "mix_in_run", searched)
    exported = deploy_kit.export(there / "n.onnx", **said(there, store))

    deploy_kit.find_mix(
        exported, 0.5, tune=there / "tune", tune_masks=there / "tune-masks", task="segment", ignore_index=IGNORED,
        store=store,
    )  # fmt: skip

    recipe, request = asked[0]
    assert (request.tune, request.masks) == (str(there / "tune"), str(there / "tune-masks"))
    assert (recipe.check.task, recipe.check.ignore_index) == ("segment", IGNORED)
