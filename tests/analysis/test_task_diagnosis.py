"""Planted faults of the preprocessing are named for every task: maps, strings, vectors, numbers, several classes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn import metrics as sklearn_metrics
from stand_ins import PretendLink

from deploy_kit.accuracy import jackknife
from deploy_kit.accuracy.scores import auroc
from deploy_kit.accuracy.tasks import scoring_of
from deploy_kit.analysis import diagnosis as diagnose
from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.images import ImageSource
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import CheckTable, ExportTable, PreprocessTable, SourceTable
from deploy_kit.records import codec
from deploy_kit.records.parity import Attempt, Diagnosis
from deploy_kit.stages import export, reference
from deploy_kit.store import Store

SIDE, N = 8, 60
COLORS = np.array([[200, 60, 30], [30, 60, 200], [60, 180, 60], [225, 220, 215]])
CLASSES = len(COLORS)
PLAIN = PreprocessTable(height=SIDE, width=SIDE, color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
BGR = PLAIN.model_copy(update={"color": "bgr"})
BYTES = PLAIN.model_copy(update={"std": (1 / 255,) * 3})


@dataclasses.dataclass(frozen=True)
class Case:
    """A network that was trained one way, labelled images, and what it is fed with.

    Attributes:
        nodes: From ``x`` (n, 3, 8, 8) to ``y``.
        weights: Its constants.
        output: Shape of ``y`` without the batch.
        labels: Array of the npz by its name.
        fed: The preprocessing that is stated.
        found: What has to be found, and a part of its cure.
        measure: Name of the score.
    """

    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    output: tuple[int, ...]
    labels: dict[str, np.ndarray]
    fed: PreprocessTable
    found: tuple[str, str]
    measure: str


def painted(places: np.ndarray) -> np.ndarray:
    """Paint classes (n, 8, 8) in their colors, with noise: uint8 (n, 8, 8, 3)."""
    noise = np.random.default_rng(1).normal(0, 20, (*places.shape, 3))
    return np.clip(COLORS[places] + noise, 0, 255).astype(np.uint8)


def templates() -> dict[str, np.ndarray]:
    """Weights of the likeness of a pixel and each color, 2 t·x - |t|²."""
    colors = COLORS / 255
    w, b = (2 * colors).reshape(CLASSES, 3, 1, 1), -np.square(colors).sum(1)
    return {"w": w.astype(np.float32), "b": b.astype(np.float32)}


def maps() -> tuple[np.ndarray, Case]:
    places = np.random.default_rng(0).integers(0, CLASSES, (N, 2, 2)).repeat(4, 1).repeat(4, 2)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    labels, shape = {"masks": places.astype(np.uint8)}, (CLASSES, SIDE, SIDE)
    return places, Case(nodes, templates(), shape, labels, BGR, ("RGB", "--color rgb"), "mIoU")


def strings() -> tuple[np.ndarray, Case]:
    random = np.random.default_rng(0)
    steps = [random.permutation(CLASSES) for _ in range(N)]
    places = np.stack([np.repeat(order, 2)[None].repeat(SIDE, 0) for order in steps])
    likeness = templates()
    weights = {
        "w": np.concatenate([np.zeros((1, 3, 1, 1), np.float32), likeness["w"]]),
        "b": np.concatenate([np.float32([-1e3]), likeness["b"]]),
        "axis": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["alike"]),
        helper.make_node("ReduceMean", ["alike", "axis"], ["column"], keepdims=0),
        helper.make_node("Transpose", ["column"], ["y"], perm=[0, 2, 1]),
    ]
    labels = {"texts": np.array([" ".join(str(k + 1) for k in order) for order in steps])}
    return places, Case(nodes, weights, (SIDE, CLASSES + 1), labels, BGR, ("RGB", "--color rgb"), "1 - CER")


def vectors() -> tuple[np.ndarray, Case]:
    classes = np.arange(N) % CLASSES
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Mul", ["flat", "w"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["y"]),  # all ones where pixels are 0..255
    ]
    found = ("pixels 0..1, no mean and std", "--mean 0,0,0 --std 1,1,1")
    case = Case(nodes, {"w": np.float32(1)}, (3,), {"labels": classes}, BYTES, found, "recall at 1")
    return np.broadcast_to(classes[:, None, None], (N, SIDE, SIDE)), case


def numbers() -> tuple[np.ndarray, Case]:
    classes = np.arange(N) % CLASSES
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    targets = (COLORS / 255).mean(1)[classes].astype(np.float32)
    found = ("pixels 0..1, no mean and std", "--mean 0,0,0 --std 1,1,1")
    case = Case(
        nodes, {"w": np.full((3, 1), 1 / 3, np.float32)}, (1,), {"targets": targets}, BYTES, found, "1 - relative MAE"
    )
    return np.broadcast_to(classes[:, None, None], (N, SIDE, SIDE)), case


def several() -> tuple[np.ndarray, Case]:
    random = np.random.default_rng(0)
    pairs = np.stack([random.permutation(CLASSES)[:2] for _ in range(N)])
    places = pairs.repeat(4, 1)[:, None].repeat(SIDE, 1)
    labels = np.zeros((N, CLASSES), np.uint8)
    labels[np.arange(N)[:, None], pairs] = 1
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["alike"]),
        helper.make_node("GlobalMaxPool", ["alike"], ["most"]),
        helper.make_node("Flatten", ["most"], ["y"]),
    ]
    return places, Case(nodes, templates(), (CLASSES,), {"labels": labels}, BGR, ("RGB", "--color rgb"), "mean AUROC")


TASKS: dict[str, Callable[[], tuple[np.ndarray, Case]]] = {
    "segment": maps,
    "sequence": strings,
    "embed": vectors,
    "regress": numbers,
    "multilabel": several,
}


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Context:
    return Context(store=store, connection=PretendLink(tmp_path, WorkerProgram().operations))


def diagnosed(
    folder: Path, context: Context, task: str, *, fed: PreprocessTable | None = None, labelled: bool = True
) -> tuple[Diagnosis, Case]:
    """Plant a case, let the checkpoint's own outputs be computed, and diagnose."""
    places, case = TASKS[task]()
    np.savez(folder / "set.npz", images=painted(places), **(case.labels if labelled else {}))
    graph = helper.make_graph(
        case.nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *case.output])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in case.weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "net.onnx")
    stated = fed or case.fed
    source = SourceTable(checkpoint=str(folder / "net.onnx"), preprocess=stated)
    images = ImageSource(name=str(folder / "set.npz"))
    made = export.run(source, ExportTable(tolerance=1e-5), context, images=images)[0]
    table = CheckTable(images=images.name, limits={}, task=task)
    opened = images.open(stated.record())
    answers, _ = reference.run(source, stated.record(), context, images=opened, wish=reference.wish_of(table))
    return diagnose.diagnose(made.onnx, answers, context, images=images)[0], case


@pytest.mark.parametrize("task", TASKS)
def test_a_planted_fault_is_named_with_its_cure(task: str, context: Context, tmp_path: Path) -> None:
    found, case = diagnosed(tmp_path, context, task)

    assert (found.found, found.measure) == (case.found[0], case.measure)
    assert case.found[1] in found.words[0]
    best = next(tried for tried in found.attempts if tried.name == found.found)
    assert found.score < 0.9 * best.score
    assert best.low <= best.score <= best.high


@pytest.mark.parametrize("task", TASKS)
def test_a_sound_preprocessing_has_nothing_better(task: str, context: Context, tmp_path: Path) -> None:
    found, case = diagnosed(tmp_path, context, task, fed=PLAIN)

    assert found.found == ""
    assert found.words[0].startswith(f"{case.measure} ")
    assert "other ways to prepare the images is better beyond noise" in found.words[0]


@pytest.mark.parametrize(
    ("task", "cure"),
    [("segment", "--masks"), ("sequence", "'texts'"), ("embed", "sub-folder a class"), ("regress", "'targets'")],
)
def test_labels_that_are_missing_are_asked_for(task: str, cure: str, context: Context, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected labelled images to diagnose with") as caught:
        diagnosed(tmp_path, context, task, labelled=False)

    assert cure in caught.value.hint


def test_always_answering_the_commonest_class_is_no_find() -> None:
    truth = np.array([90.0, 10.0])
    sums = np.concatenate([[90.0, 0.0], [100.0, 0.0], truth])

    scoring = scoring_of("segment")

    constant, labels = np.zeros(100, int), np.repeat([0, 1], [90, 10])
    assert scoring.blind(sums) == sklearn_metrics.jaccard_score(labels, constant, average="macro", zero_division=0)


def test_the_interval_of_a_mean_is_that_of_student() -> None:
    # Of a mean the jackknife is the usual interval: mean ± t · s / √n.
    values = np.random.default_rng(0).random(12)

    low, high = jackknife.interval(np.stack([values, np.ones(12)], 1), lambda sums: sums[..., 0] / sums[..., 1])

    half = 2.2010 * values.std(ddof=1) / np.sqrt(12)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)


def test_mean_auroc_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((200, 3)) < 0.4).astype(np.uint8)
    values = random.standard_normal((200, 3)) + labels

    score, low, high = auroc.mean_auroc(values, labels)

    assert score == pytest.approx(sklearn_metrics.roc_auc_score(labels, values, average="macro"))
    assert low < score < high < low + 0.15


def test_records_of_earlier_versions_are_read() -> None:
    tried = {"name": "BGR", "cure": "", "top1": 0.9, "low": 0.8, "high": 1.0, "won": 1, "lost": 0, "p": 1.0}
    earlier = {"graph": "", "images": "some", "n": 9, "top1": 0.3, "attempts": [tried], "words": [], "found": ""}

    found = codec.from_json(Diagnosis, earlier)

    assert (found.score, found.measure) == (0.3, "top-1")
    assert found.attempts == (Attempt(name="BGR", cure="", score=0.9, low=0.8, high=1.0, won=1, lost=0, p=1.0),)
