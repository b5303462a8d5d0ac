"""Names of classes travel: from beside a checkpoint into its files, and from there or the images into bundles."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bundle_making import pack
from stage_inputs import run_of

import deploy_kit
from deploy_kit import pipeline
from deploy_kit.analysis.inspection import inspect_file
from deploy_kit.base.errors import InputError
from deploy_kit.delivery import contents
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.images import open_set
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.stages.export import class_names_beside
from deploy_kit.stages.pack import class_names
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "tiny_bundles"]
NAMES = ("T-shirt/top", 'Bür"ste', "| *b* {{x}}", "d")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny.classes.txt", "classes.txt"])
def test_names_beside_a_checkpoint_are_in_its_file(
    tiny: Recipe, connection: Connection, tmp_path: Path, name: str
) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    checkpoint.write_bytes(Path(tiny.source.checkpoint).read_bytes())
    store = Store(tmp_path / "store")
    recipe = overrides.with_inputs(tiny, checkpoint=str(checkpoint))
    bare = pipeline.exported(run_of(recipe, store, connection)).onnx
    (tmp_path / name).write_text("\n".join(NAMES), encoding="utf-8")

    named = pipeline.exported(run_of(recipe, store, connection)).onnx

    assert onnx_file.classes(onnx_file.load(store.path(bare))) == ()
    assert onnx_file.classes(onnx_file.load(store.path(named))) == NAMES
    assert dict(inspect_file(store.path(named)).facts)["classes"] == ", ".join(NAMES)


def test_names_of_another_network_and_names_twice(tmp_path: Path) -> None:
    assert class_names_beside(tmp_path / "net.pth") == ()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert class_names_beside(tmp_path / "net.pth") == ("a", "b")
    (tmp_path / "net.classes.txt").write_text("c\nc\n")
    with pytest.raises(InputError, match="the class 'c' is there twice"):
        class_names_beside(tmp_path / "net.pth")


def test_names_are_the_files_own_else_those_of_the_images(line: "Line") -> None:
    graph = line.store.path(line.lean)
    images = open_set(line.answers.images, line.lean.preprocess)
    logits = np.zeros((1, 4), np.float32)

    assert class_names(graph, images, logits) == ()
    assert class_names(graph, replace(images, classes=NAMES), logits) == NAMES
    assert class_names(graph, replace(images, classes=NAMES[:2]), logits) == ()


@pytest.mark.slow
def test_a_bundle_holds_the_names_wherever_they_are_read(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy_kit.stages.pack.class_names", lambda *of: NAMES)

    bundle = pack(line, "int8", "onnxruntime", tmp_path / "bundle")

    with contents.opened(bundle) as opened:
        assert opened.manifest.classes == NAMES
    assert (bundle / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES)
    assert 'label_filename: "labels.txt"' in (bundle / "triton" / "tiny-int8-onnxruntime" / "config.pbtxt").read_text()
    assert '"B\\303\\274r\\042ste",' in (bundle / "cpp" / "bundle.h").read_text()
    assert "\\| \\*b\\* \\{\\{x\\}\\}" in (bundle / "README.md").read_text(encoding="utf-8")
    proved = line.store.path(line.built("int8", "onnxruntime")).read_bytes()
    for file in (bundle / "model.onnx", bundle / "triton" / "tiny-int8-onnxruntime" / "1" / "model.onnx"):
        assert onnx_file.classes(onnx_file.load(file)) == NAMES
        assert file.read_bytes().startswith(proved)  # the file that was checked, and the names behind it
    with np.load(bundle / "golden.npz") as data, deploy_kit.load(bundle) as predictor:
        assert predictor.predict(data["images"][0]).names[0] == NAMES[data["logits"][0].argmax()]


def test_a_name_that_would_move_the_cursor_is_refused(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy_kit.stages.pack.class_names", lambda *of: ("a", "b", "c", "\x1b[2J"))

    with pytest.raises(InputError, match=r"class 3: expected a name .* control character U\+001B"):
        pack(line, "int8", "onnxruntime", tmp_path / "bundle")
