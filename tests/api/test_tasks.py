"""What an output means is said in Python as on the command line: a segmentation with two outputs, down the line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

import deploy_kit
from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.records.results import Report
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

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
    for kind, n in (("check", 12), ("calibration", 16), ("tune", 12)):
        pixels = random.integers(0, 256, (n, SIDE, SIDE), np.uint8)
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


def deployed(there: Path, store: Store, **said: object) -> Report:
    given = {
        "input": (SIDE, SIDE), "mean": 0.5, "std": 0.5, "output": "maps", "engines": "onnxruntime",
        "images": there / "check", "masks": there / "check-masks", "ignore_index": IGNORED, **said,
    }  # fmt: skip
    return deploy_kit.deploy(there / "n.onnx", store=store, **given)  # type: ignore[arg-type]


def test_a_segmentation_is_deployed_and_checked_by_its_masks(there: Path, store: Store) -> None:
    report = deployed(there, store, calibration=there / "calibration", task="segment")

    assert [row.label for row in report.rows] == ["fp32 · onnxruntime", "int8 · onnxruntime"]
    for row in report.rows:
        assert row.parity is not None and row.parity.task is not None
        assert (row.parity.task.task, row.parity.task.measure, row.parity.task.reference) == ("segment", "mIoU", 1.0)
    graph = report.rows[1].artifact
    assert graph is not None
    judged = deploy_kit.check(graph, masks=there / "check-masks", ignore_index=IGNORED, task="segment", store=store)
    assert judged.task is not None and judged.task.reference == 1.0


def test_masks_with_a_number_that_is_no_class_need_the_index_that_is_ignored(there: Path, store: Store) -> None:
    with pytest.raises(InputError, match="255"):
        deployed(there, store, ignore_index=None, precisions="fp32")


def test_the_other_output_is_another_task(there: Path, store: Store) -> None:
    report = deployed(there, store, output="depth", masks=None, ignore_index=None, precisions="fp32")

    parity = report.rows[0].parity
    assert parity is not None and parity.task is not None and parity.task.task == "segment"
    assert any(remark.startswith("one channel: ") for remark in parity.remarks)


def test_an_output_said_beside_a_recipe_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="input, mean, std and output are said of a checkpoint"):
        deploy_kit.deploy("demo", store=store, output="maps")


def test_a_mix_is_searched_by_the_masks_of_the_tuning_images(there: Path, store: Store) -> None:
    exported = deploy_kit.export(
        there / "n.onnx", input=(SIDE, SIDE), mean=0.5, std=0.5, output="maps", calibration=there / "calibration",
        store=store,
    )  # fmt: skip
    said = {"tune": there / "tune", "task": "segment", "ignore_index": IGNORED, "store": store}

    mixed = deploy_kit.find_mix(exported, 50.0, tune_masks=there / "tune-masks", **said)  # type: ignore[arg-type]

    assert mixed.mix.found and mixed.mix.judged_by == "mIoU"
    with pytest.raises(InputError, match=r"nowhere"):
        deploy_kit.find_mix(exported, 50.0, tune_masks=there / "nowhere", **said)  # type: ignore[arg-type]
