"""A tiny DenseNet of which one dense layer cannot be quantized, though in float it is the same function as without.

Every second channel between its two convolutions is a thousandth of what it was, and the convolution behind takes a
thousand times as much of it: on one grid for all channels they vanish, and in one scale for all inputs the other
weights do.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
from stand_ins import PretendLink, hand_made
from tiny_densenet import TINY_PREPROCESS

from deploy_kit import images
from deploy_kit.analysis.sensitivity import TrialRunner, TrialSubject
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.graph import layer_names
from deploy_kit.images import ImageSource
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import Variant
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.store import Store

FAULTY = "denseblock1.denselayer2"
GROUPS = (
    "stem", "denseblock1.denselayer1", "denseblock1.denselayer2", "transition1", "denseblock2.denselayer1",
    "denseblock2.denselayer2", "head",
)  # fmt: skip
N = 300


def pictures(n: int, seed: int) -> np.ndarray:
    """Draw coarse squares of every brightness: (n, 16, 16) uint8."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((n, 4, 4)) * generator.random((n, 1, 1))
    return (255 * np.kron(coarse, np.ones((1, 4, 4)))).astype(np.uint8)


def faulty_graph(center: np.ndarray) -> ir.Model:
    """Plant the fault in the simplified graph, and center the logits so that the classes are about as frequent."""
    model = tiny_graphs.simplified_model()
    layer = next(group for group in layer_names.layer_groups(model) if group.name == FAULTY)
    first, second = layer.weighted
    # Equalization takes the square root of it between activations and weights, and four digits are left in both.
    for value, index, factor in ((first.inputs[1], 0, 1e-8), (first.inputs[2], 0, 1e-8), (second.inputs[1], 1, 1e8)):
        assert value is not None and value.const_value is not None
        array = value.const_value.numpy().copy()
        array[(slice(None),) * index + (slice(None, None, 2),)] *= factor
        value.const_value = ir.tensor(array, name=value.name)
    bias = layer_names.layer_groups(model)[-1].weighted[0].inputs[2]
    assert bias is not None and bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() - center, name=bias.name)
    return model


def logits_of(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Compute logits in ONNX Runtime, image by image."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine: sums that do not saturate
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    found = (session.run(None, {feed: images.to_tensors(image, TINY_PREPROCESS)[None]})[0] for image in pixels)
    return np.concatenate(list(found))


@dataclass(frozen=True)
class Planted:
    """The faulty network's graph and answers in a store, and its image sets."""

    store: Store
    connection: PretendLink
    lean: Artifact
    answers: ReferenceLogits
    calibration: str

    def trials(
        self, on_progress: ProgressCallback = no_progress, *, engine: str = "reference", **options: Any
    ) -> TrialRunner:
        """Open trials; engine ``reference`` times no layers, so that multiply-accumulates order the groups."""
        subject = TrialSubject(
            simplified=self.lean,
            variant=Variant(name="int8", scheme="int8_portable", options=options),
            calibration=ImageSource(name=self.calibration),
            tuning=ImageSource(name=self.answers.images),
            reference=self.answers,
            engine=engine,
        )
        return TrialRunner(
            subject=subject,
            context=Context(store=self.store, connection=self.connection, on_progress=on_progress),
            host=self.connection,
        )

    def answered(self, *, wrong: int = 0, labelled: bool = True, n: int = N) -> "Planted":
        """Give other answers: on the first `wrong` images the checkpoint is said to have had it right and different."""
        with np.load(self.store.root / self.answers.path) as data:
            logits, labels = data["logits"][:n].copy(), data["labels"][:n].copy()
        logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
        labels[:wrong] = logits[:wrong].argmax(1)
        path = f"answers-{wrong}-{labelled}-{n}.npz"
        np.savez(self.store.root / path, logits=logits, **({"labels": labels} if labelled else {}))
        digest = sha256_of(self.store.root / path)
        top1 = self.answers.top1 if labelled else None
        return replace(self, answers=replace(self.answers, path=path, sha256=digest, labelled=labelled, top1=top1, n=n))


@pytest.fixture(scope="session")
def planted_once(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Made once; `planted` copies it."""
    folder = tmp_path_factory.mktemp("planted")
    store, connection = Store(folder / "store"), PretendLink(folder, WorkerProgram().operations)
    center, like = np.zeros(4, np.float32), tiny_graphs.simplified()[0].onnx
    for name in ("plain", "centered"):
        lean = hand_made(store, ir.serde.serialize_model(faulty_graph(center)), like, name)
        center = center + logits_of(store.path(lean), pictures(200, 9)).mean(0)
    shown = pictures(N, 1)
    logits = logits_of(store.path(lean), shown)
    np.savez(store.root / "answers.npz", logits=logits, labels=logits.argmax(1))
    np.savez(folder / "tune.npz", images=shown, labels=logits.argmax(1))
    np.savez(folder / "calibration.npz", images=pictures(40, 2))
    answers = ReferenceLogits(
        path="answers.npz",
        sha256=sha256_of(store.root / "answers.npz"),
        images=str(folder / "tune.npz"),
        n=N,
        labelled=True,
        top1=1.0,
    )
    return Planted(store, connection, lean, answers, str(folder / "calibration.npz"))


@pytest.fixture
def planted(planted_once: Planted, tmp_path: Path) -> Planted:
    """A store of one's own, in which nothing was tried yet."""
    shutil.copytree(planted_once.store.root, tmp_path / "store")
    return replace(
        planted_once, store=Store(tmp_path / "store"), connection=PretendLink(tmp_path, WorkerProgram().operations)
    )
