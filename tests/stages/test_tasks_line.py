"""Tests of reference and check where outputs are maps: against counting by hand, and in little memory."""

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn import metrics as sklearn_metrics
from stand_ins import PretendLink

from deploy_kit.accuracy.tasks import TaskSettings, scoring_of
from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.devices import task_comparison
from deploy_kit.images import ImageSource
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import BuildEntry, CheckTable, ExportTable, LimitsTable, PreprocessTable, SourceTable
from deploy_kit.records.artifacts import BareInput
from deploy_kit.records.results import EngineRow, ParityReport
from deploy_kit.stages import build, check, export, reference
from deploy_kit.stages.report import accuracy
from deploy_kit.stages.report.document import Table
from deploy_kit.store import Store

SIDE, CLASSES, N = 8, 3, 20
STATED = PreprocessTable(height=SIDE, width=SIDE, color="gray", mean=(0.5,), std=(0.5,))


def network(path: Path, scale: float = 1.0, seed: int = 0, classes: int = CLASSES, *, strings: bool = False) -> Path:
    """Write a convolution of 3×3 to `classes` maps; `scale` blurs what it tells apart; `strings` reads by columns."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((classes, 1, 3, 3)).astype(np.float32)
    weight += (scale - 1) * random.standard_normal(weight.shape).astype(np.float32)
    convolution = helper.make_node("Conv", ["x", "w"], ["maps" if strings else "y"], pads=[1, 1, 1, 1])
    columns = [
        helper.make_node("ReduceMean", ["maps"], ["columns"], axes=[2], keepdims=0),
        helper.make_node("Transpose", ["columns"], ["y"], perm=[0, 2, 1]),
    ]
    shape = [SIDE, classes] if strings else [classes, SIDE, SIDE]
    graph = helper.make_graph(
        [convolution, *(columns if strings else ())],
        "maps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *shape])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def outputs(path: Path, pixels: np.ndarray) -> np.ndarray:
    tensors = (pixels[:, None].astype(np.float32) / 255 - 0.5) / 0.5
    return np.asarray(onnxruntime.InferenceSession(path).run(None, {"x": tensors})[0])


def decoded(output: np.ndarray) -> list[int]:
    """Decode CTC logits (T, K): repetitions merged, class 0 left out."""
    return [int(k) for k, _ in itertools.groupby(output.argmax(1)) if k]


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Context:
    return Context(store=store, connection=PretendLink(tmp_path, WorkerProgram().operations))


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """Images whose masks are the network's own, but for a tenth of the pixels."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (N, SIDE, SIDE), np.uint8)
    masks = outputs(network(tmp_path / "net.onnx"), images).argmax(1)
    wrong = random.random(masks.shape) < 0.1
    masks[wrong] = random.integers(0, CLASSES, int(wrong.sum()))
    np.savez(tmp_path / "set.npz", images=images, masks=masks.astype(np.uint8))
    return images


def checked(
    context: Context, tmp_path: Path, engine_of: Path, *, limits: LimitsTable | None = None, **table: object
) -> ParityReport:
    """Check an engine of one network against another, ``net.onnx``."""
    source = SourceTable(checkpoint=str(tmp_path / "net.onnx"), preprocess=STATED)
    images = ImageSource(name=str(tmp_path / "set.npz"))
    made = export.run(
        source.model_copy(update={"checkpoint": str(engine_of)}), ExportTable(tolerance=1e-5), context, images=images
    )[0]
    engine, _ = build.run(made.onnx, BuildEntry(engine="onnxruntime", variants=("fp32",)), context)
    judged = CheckTable(images=images.name, limits={"fp32": limits or LimitsTable(min_sqnr_db=5)}, **table)  # type: ignore[arg-type]
    answers, _ = reference.run(
        source, STATED.record(), context, images=images.open(STATED.record()), wish=reference.wish_of(judged)
    )
    report, _ = check.run(engine, judged, context, reference=answers, images=images)
    assert isinstance(report, ParityReport)
    return report


def test_a_segmentation_is_scored_as_scikit_learn_does(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    other = network(tmp_path / "other.onnx", scale=1.2)
    masks = np.load(tmp_path / "set.npz")["masks"].ravel()

    report = checked(context, tmp_path, other)

    wanted, found = (outputs(path, pixels).argmax(1).ravel() for path in (tmp_path / "net.onnx", other))
    assert report.task is not None
    assert report.drop is not None
    before, after = (sklearn_metrics.jaccard_score(masks, answer, average="macro") for answer in (wanted, found))
    assert (report.task.reference, report.task.found) == pytest.approx((before, after))
    assert report.drop.points == pytest.approx(100 * (before - after))
    assert report.drop.low < report.drop.points < report.drop.high
    assert report.agreement == pytest.approx((wanted == found).mean())
    assert [one.n for one in report.task.classes] == np.bincount(masks).tolist()
    difference = outputs(tmp_path / "net.onnx", pixels) - outputs(other, pixels)
    assert report.max_error == pytest.approx(np.abs(difference).max(), rel=1e-4)


def test_the_same_network_loses_nothing(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    report = checked(context, tmp_path, tmp_path / "net.onnx", limits=LimitsTable(max_drop=0.1))

    assert (report.agreement, report.drop_pp, report.verdict.word) == (1.0, 0.0, "accepted")
    assert "task segment (inferred from the output's shape N×3×8×8; --task says otherwise)" in report.remarks


def test_a_drop_above_its_limit_rejects(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    other = network(tmp_path / "other.onnx", scale=1.2)

    report = checked(context, tmp_path, other, limits=LimitsTable(max_drop=0.5, min_agreement=0.999))

    assert report.verdict.word == "rejected"
    assert any(reason.startswith("mIoU drop ") for reason in report.verdict.reasons)
    assert any(reason.startswith("pixel agreement ") for reason in report.verdict.reasons)


def test_top1_cannot_be_asked_of_a_segmentation(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    report = checked(context, tmp_path, tmp_path / "net.onnx", limits=LimitsTable(min_top1=0.5))

    assert report.verdict.reasons == ("top-1 cannot be measured: task 'segment' is scored by mIoU",)


def test_pictures_show_the_images_that_differ_most(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    other = network(tmp_path / "other.onnx", scale=1.2)
    wanted, found = (outputs(path, pixels).argmax(1) for path in (tmp_path / "net.onnx", other))
    apart = (wanted != found).mean(axis=(1, 2))

    report = checked(context, tmp_path, other)

    assert report.task is not None
    assert [one.differing for one in report.task.pictures] == pytest.approx(np.sort(apart)[::-1][:4])
    assert [apart[one.image] for one in report.task.pictures] == pytest.approx(np.sort(apart)[::-1][:4])


def test_strings_that_differ_are_in_the_report(context: Context, tmp_path: Path) -> None:
    paths = [network(tmp_path / name, scale, strings=True) for name, scale in (("net.onnx", 1.0), ("other.onnx", 1.5))]
    images = np.random.default_rng(3).integers(0, 256, (N, SIDE, SIDE), np.uint8)
    wanted, found = ([decoded(one) for one in outputs(path, images)] for path in paths)
    np.savez(tmp_path / "set.npz", images=images, texts=np.array([" ".join(map(str, one)) for one in wanted]))

    report = checked(context, tmp_path, paths[1])

    assert report.task is not None
    assert (report.task.measure, report.task.reference) == ("1 - CER", 1.0)
    assert report.agreement == np.mean([one == other for one, other in zip(wanted, found, strict=True)]) < 1
    for one in report.task.texts:
        assert one.label == one.reference == " ".join(map(str, wanted[one.image]))
        assert one.found == " ".join(map(str, found[one.image])) != one.reference
    row = EngineRow(label="fp32 · onnxruntime", artifact=None, parity=report)
    table = accuracy.section((row,)).blocks[-2]
    assert isinstance(table, Table)
    assert [entry[2:] for entry in table.rows] == [(t.reference, t.found, t.label) for t in report.task.texts]
    first = report.task.texts[0]
    said = dict(accuracy.lines(report))
    assert said[f"string of {first.name}"] == f"'{first.reference}' → '{first.found}' (label '{first.label}')"


def test_a_class_that_the_output_has_not_is_refused_before_anything_runs(context: Context, tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    masks[1, 0, 0] = 255
    np.savez(tmp_path / "set.npz", images=masks, masks=masks)

    with pytest.raises(InputError, match=r"set.npz: masks\[1\]: class 255, and the output has 3 classes") as caught:
        checked(context, tmp_path, tmp_path / "net.onnx")

    assert caught.value.hint == "where 255 marks pixels that are not judged: --ignore-index 255"


def test_ignored_pixels_change_the_score(context: Context, tmp_path: Path, pixels: np.ndarray) -> None:
    masks = np.load(tmp_path / "set.npz")["masks"].ravel()

    report = checked(context, tmp_path, tmp_path / "net.onnx", ignore_index=2)

    answer, judged = outputs(tmp_path / "net.onnx", pixels).argmax(1).ravel(), masks != 2
    iou = sklearn_metrics.jaccard_score(masks[judged], answer[judged], average=None, labels=[0, 1])
    assert report.task is not None
    assert report.task.reference == pytest.approx(iou.mean())


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"task": "classify"}, "task 'classify': expected an output N×K, found N×3×8×8"),
        ({"task": "segment", "crops": 10}, "task 'segment': expected one crop an image, found 10"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(
    context: Context, tmp_path: Path, pixels: np.ndarray, stated: dict[str, object], said: str
) -> None:
    source = SourceTable(checkpoint=str(tmp_path / "net.onnx"), preprocess=STATED)
    table = CheckTable(images="synthetic", limits={}, **stated)  # type: ignore[arg-type]
    images = ImageSource(name="synthetic").open(STATED.record())

    with pytest.raises(InputError) as caught:
        reference.run(source, STATED.record(), context, images=images, crops=table.crops, wish=reference.wish_of(table))

    assert str(caught.value) == said


def test_large_maps_are_compared_in_little_memory(tmp_path: Path) -> None:
    shape, n = (21, 512, 512), 6
    gallery = np.lib.format.open_memmap(tmp_path / "answers.npy", mode="w+", dtype=np.float32, shape=(n, *shape))
    random = np.random.default_rng(0)
    gallery[:] = random.standard_normal(shape, np.float32)
    gallery.flush()
    images = ImageSource(name="synthetic").open(BareInput(shape=(1, 4, 4)))
    case = task_comparison.TaskCase(
        scoring=scoring_of("segment"),
        settings=TaskSettings(shape=shape, gallery=np.load(tmp_path / "answers.npy", mmap_mode="r")),
        images=images,
        preprocess=BareInput(shape=(1, 4, 4)),
        labelled=False,
    )

    def noisy() -> Iterator[np.ndarray]:
        for output in gallery:
            yield output + np.float32(0.1)

    tracemalloc.start()
    arrays = task_comparison.compare_outputs(noisy(), case, "an engine")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert arrays["alike"].sum() == arrays["of"].sum() == n * 512 * 512
    assert peak < 300e6  # all maps of one side are 132 MB, in float64 as they are compared 264 MB
