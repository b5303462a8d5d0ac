"""The tiny DenseNet taken down the straight line once a session. A plugin: `pytest_plugins = ["tiny_line"]`."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_inputs import images_of, run_of

from deploy_kit import images, pipeline
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSource
from deploy_kit.recipe import BuildEntry, Recipe, Variant, overrides
from deploy_kit.records.artifacts import Artifact, Exported, ReferenceLogits
from deploy_kit.stages import build, quantize
from deploy_kit.store import Store

VARIANTS = {
    "fp16": Variant(name="fp16", scheme="fp16"),
    "bf16": Variant(name="bf16", scheme="bf16"),
    "int8": Variant(name="int8", scheme="int8_ort"),
    "int8-symmetric": Variant(name="int8-symmetric", scheme="int8_ort", options={"symmetric": True}),
}


@dataclass(frozen=True, repr=False)
class Line:
    """What the stages made of the tiny recipe, in one store that every test shares and none changes."""

    recipe: Recipe
    store: Store
    connection: Connection
    exported: Exported
    answers: ReferenceLogits
    lean: Artifact
    snapshot: Path

    @property
    def check_images(self) -> ImageSource:
        """The set that the reference logits are of."""
        return ImageSource(name=self.answers.images)

    def graph(self, name: str) -> Artifact:
        """Give the graph of one variant."""
        if name == "fp32":
            return self.lean
        calibration = self.recipe.quantize.calibration
        return quantize.run(
            self.lean,
            VARIANTS[name],
            Context(store=self.store, connection=self.connection),
            calibration=images_of(calibration),
        )[0]

    def built(self, name: str, engine: str, **options: Any) -> Artifact:
        """Give the engine of one variant."""
        entry = BuildEntry(engine=engine, variants=(name,), options=options)
        return build.run(self.graph(name), entry, Context(store=self.store, connection=self.connection))[0]

    def inputs(self) -> np.ndarray:
        """Give the check images as the graph takes them: (24, 1, 16, 16) float32."""
        preprocess = self.lean.preprocess
        return next(images.open_set(self.recipe.check.images, preprocess).batches(preprocess, 24))

    def logits(self) -> np.ndarray:
        """Give torch's own logits on the check images: (24, 4) float32."""
        with np.load(self.store.root / self.answers.path) as data:
            return data["logits"]


@pytest.fixture(scope="session")
def line(tiny: Recipe, connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Export, simplify and quantize the tiny DenseNet, and build it for onnxruntime."""
    made = _simplified(tiny, connection, tmp_path_factory.mktemp("line"))
    made.built("fp32", "onnxruntime")
    made.built("int8", "onnxruntime")
    shutil.copytree(made.store.root, made.snapshot)
    return made


@pytest.fixture(scope="session")
def pixel_line(tiny: Recipe, connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Export and simplify the tiny DenseNet with pixels in; it has no snapshot."""
    recipe = overrides.with_export(tiny, {}, {"input_pixels": True})
    return _simplified(recipe, connection, tmp_path_factory.mktemp("pixel-line"))


def _simplified(recipe: Recipe, connection: Connection, folder: Path) -> Line:
    store = Store(folder / "store", recipe.model_dump(mode="json"))
    run = run_of(recipe, store, connection)
    exported = pipeline.exported(run)
    answers = pipeline.reference_logits(run, exported)
    lean = pipeline.simplified(run, exported).onnx
    return Line(recipe, store, connection, exported, answers, lean, folder / "snapshot")


@pytest.fixture
def kept(line: Line, tmp_path: Path) -> Store:
    """A store of the test's own that holds what `line` began with: the int8 engine of onnxruntime is the newest."""
    shutil.copytree(line.snapshot, tmp_path / "kept")
    return Store(tmp_path / "kept", line.store.recipe)
