"""Planted faults of the preprocessing are named with their cure, and noise is no find."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from stage_inputs import images_of

from deploy_kit import images
from deploy_kit.accuracy import preprocess_variants
from deploy_kit.analysis import diagnosis as diagnose
from deploy_kit.analysis import way_scores
from deploy_kit.base.errors import CheckError, InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file, pixel_input
from deploy_kit.recipe import LimitsTable
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess, ReferenceLogits
from deploy_kit.records.parity import Diagnosis
from deploy_kit.store import Store

IMAGENET = Preprocess(
    height=8, width=8, color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
)
GRAY = Preprocess(height=8, width=8, color="gray", mean=(0.3,), std=(0.35,))
# Hues and brightness: a shift, a scale or an exchange of channels takes one class for another.
COLORS = np.array(
    [
        [200, 60, 30],
        [100, 30, 15],
        [30, 60, 200],
        [15, 30, 100],
        [60, 180, 60],
        [30, 90, 30],
        [230, 225, 220],
        [90, 88, 86],
    ]
)


def test_a_checkpoint_that_is_right_on_few_images_is_said_to_be_fed_otherwise_than_in_training() -> None:
    answers = ReferenceLogits(path="a.npz", sha256="b" * 64, images="val", n=1000, labelled=True, top1=0.268)

    (said,) = diagnose.low_score_remarks(answers, ())

    assert said.startswith("the checkpoint itself is right on only 26.8 % of these images")
    assert "deploykit check --diagnose" in said
    assert diagnose.low_score_remarks(answers, [LimitsTable(min_top1=0.9)]) == (said,)
    assert diagnose.low_score_remarks(answers, [LimitsTable(min_top1=0.25), LimitsTable()]) == ()
    assert diagnose.low_score_remarks(dataclasses.replace(answers, top1=0.7), ()) == ()
    assert diagnose.low_score_remarks(dataclasses.replace(answers, top1=None), ()) == ()


def changed(preprocess: Preprocess, **parts: object) -> Preprocess:
    return dataclasses.replace(preprocess, **parts)  # type: ignore[arg-type]


def scaled(preprocess: Preprocess, mean: float, std: float) -> Preprocess:
    n = preprocess.channels
    return changed(preprocess, mean=(mean,) * n, std=(std,) * n)


def twice(preprocess: Preprocess) -> Preprocess:
    m, s = np.array(preprocess.mean), np.array(preprocess.std)
    return changed(preprocess, mean=tuple(map(float, m + m * s)), std=tuple(map(float, s * s)))


def photos(each: int = 30, gray: bool = False, side: int = 8, noise: float = 25) -> tuple[np.ndarray, np.ndarray]:
    """Give noisy uint8 images, one color a class, and their labels."""
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(len(COLORS)), each)
    levels = np.linspace(20, 200, len(COLORS))[labels][:, None, None] if gray else COLORS[labels][:, None, None]
    shape = (len(labels), side, side, *(() if gray else (3,)))
    return np.clip(levels + random.normal(0, noise, shape), 0, 255).astype(np.uint8), labels


class Planted:
    """A nearest-template classifier made for one preprocessing, in a store as if it had been exported for another."""

    def __init__(self, folder: Path, trained: Preprocess, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.store = Store(folder / "store")
        inputs = np.stack([images.to_tensors(image, trained) for image in pixels]).reshape(len(pixels), -1)
        templates = np.stack([inputs[labels == k].mean(axis=0) for k in range(len(COLORS))])
        # |x - t|² without |x|², which all classes share
        self.weights, self.bias = 2 * templates.T, -np.square(templates).sum(axis=1)
        self.pixels, self.folder, self.trained = pixels, folder, trained

    def diagnosed(self, present: Preprocess, labels: np.ndarray, connection: Connection) -> Diagnosis:
        np.savez(self.folder / "photos.npz", images=self.pixels, labels=labels)
        answers = self.answers(present, labels)
        return diagnose.diagnose(
            self.graph(present),
            answers,
            Context(store=self.store, connection=connection),
            images=images_of(answers.images, skip_bad=answers.skipped > 0),
        )[0]

    def answers(self, present: Preprocess, labels: np.ndarray) -> ReferenceLogits:
        inputs = np.stack([images.to_tensors(image, present) for image in self.pixels]).reshape(len(self.pixels), -1)
        logits = (inputs @ self.weights + self.bias).astype(np.float32)
        path = self.store.root / "answers.npz"
        np.savez(path, logits=logits, labels=labels)
        name = str(self.folder / "photos.npz")
        return ReferenceLogits(
            path="answers.npz", sha256=sha256_of(path), images=name, n=len(labels), labelled=True,
            top1=float((logits.argmax(axis=1) == labels).mean()) if labels.ndim == 1 else None,
        )  # fmt: skip

    def graph(self, present: Preprocess) -> Artifact:
        shape = ["n", *present.shape]
        body = helper.make_graph(
            [
                helper.make_node("Flatten", ["input"], ["flat"]),
                helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
            ],
            "planted",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(COLORS)])],
            [
                numpy_helper.from_array(self.weights.astype(np.float32), "w"),
                numpy_helper.from_array(self.bias.astype(np.float32), "b"),
            ],
        )
        path = self.store.root / "model.onnx"
        onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return Artifact(
            kind="onnx", name="planted", path="model.onnx", sha256=sha256_of(path), size_bytes=1, precision="fp32",
            inputs=(), outputs=(), preprocess=present, stage="export", parent="",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "present", "found", "cure"),
    [
        (changed(IMAGENET, color="bgr"), IMAGENET, "BGR", "--color bgr --mean 0.485,0.456,0.406"),
        (IMAGENET, changed(IMAGENET, color="bgr"), "RGB", "--color rgb"),
        (IMAGENET, scaled(IMAGENET, 0, 1), "ImageNet's mean and std", "--std 0.229,0.224,0.225"),
        (scaled(IMAGENET, 0, 1), IMAGENET, "pixels 0..1, no mean and std", "--mean 0,0,0 --std 1,1,1"),
        (scaled(IMAGENET, 0, 1 / 255), scaled(IMAGENET, 0, 1), "pixels 0..255, no mean and std", "--std 0.00392157"),
        (scaled(IMAGENET, 0, 1), scaled(IMAGENET, 0, 1 / 255), "pixels 0..1, no mean and std", "--std 1,1,1"),
        (IMAGENET, twice(IMAGENET), "ImageNet's mean and std", "--mean 0.485,0.456,0.406"),
        (twice(IMAGENET), IMAGENET, "mean and std applied twice", "--std 0.052441,"),
        (scaled(IMAGENET, 0.5, 0.5), scaled(IMAGENET, 0, 1), "pixels -1..1 (mean and std 0.5)", "--mean 0.5,0.5,0.5"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_named_with_its_cure(
    tmp_path: Path, connection: Connection, trained: Preprocess, present: Preprocess, found: str, cure: str
) -> None:
    pixels, labels = photos()
    planted = Planted(tmp_path, trained, pixels, labels)

    diagnosis = planted.diagnosed(present, labels, connection)

    assert diagnosis.score < 0.9
    assert diagnosis.found == found
    assert diagnosis.words[0].startswith(f"{found} restores it: {100 * diagnosis.score:.1f} % → 100.0 %")
    assert "export again with --input 8x8 --color " in diagnosis.words[0]
    assert cure in diagnosis.words[0]


@pytest.mark.parametrize(
    ("trained", "found", "cure"),
    [
        (changed(IMAGENET, color="bgr"), "BGR", "--color bgr"),
        (scaled(IMAGENET, 0, 1), "pixels 0..1, no mean and std", "--mean 0,0,0 --std 1,1,1 --input-pixels"),
    ],
)
def test_a_normalization_within_the_graph_is_diagnosed_alike(
    tmp_path: Path, connection: Connection, trained: Preprocess, found: str, cure: str
) -> None:
    pixels, labels = photos()
    planted = Planted(tmp_path, trained, pixels, labels)
    np.savez(tmp_path / "photos.npz", images=pixels, labels=labels)
    graph, answers = planted.graph(IMAGENET), planted.answers(IMAGENET, labels)
    path = planted.store.path(graph)
    model = onnx_file.load(path)
    taken = pixel_input.take_pixels(model, IMAGENET)
    onnx_file.save(model, path)
    graph = dataclasses.replace(graph, sha256=sha256_of(path), preprocess=taken)

    diagnosis, _ = diagnose.diagnose(
        graph, answers, Context(store=planted.store, connection=connection), images=images_of(answers.images)
    )

    assert diagnosis.found == found
    assert any(cure in word for word in diagnosis.words)


def test_inverted_gray_is_named(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos(gray=True)
    planted = Planted(tmp_path, GRAY, 255 - pixels, labels)
    planted.pixels = pixels

    diagnosis = planted.diagnosed(GRAY, labels, connection)

    assert diagnosis.found == "inverted"
    assert diagnosis.words[0].endswith("no flag does it: store the images inverted (255 - pixel)")


@pytest.mark.slow
def test_a_cut_that_the_training_did_not_have_is_named(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos(side=16)
    pixels[:, 4:12, 4:12] = np.random.default_rng(1).integers(0, 256, (len(labels), 8, 8, 3))
    planted = Planted(tmp_path, changed(IMAGENET, resize=8), pixels, labels)

    diagnosis = planted.diagnosed(changed(IMAGENET, resize=16), labels, connection)

    assert diagnosis.found == "resized without a margin"
    assert "--resize 8" in diagnosis.words[0]


def test_a_sound_preprocessing_has_nothing_better(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos()
    random = np.random.default_rng(2)
    noisy = np.where(random.uniform(size=len(labels)) < 0.4, random.integers(0, 8, len(labels)), labels)

    diagnosis = Planted(tmp_path, IMAGENET, pixels, labels).diagnosed(IMAGENET, noisy, connection)

    assert diagnosis.found == ""
    assert diagnosis.words[0].endswith("other ways to prepare the images is better beyond noise")
    assert "none of " in diagnosis.words[0]


@pytest.mark.slow
def test_swapped_labels_are_named_and_no_preprocessing_is_blamed(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos()
    order = np.array([0, 1, 2, 3, 7, 5, 6, 4])

    diagnosis = Planted(tmp_path, IMAGENET, pixels, labels).diagnosed(IMAGENET, order[labels], connection)

    assert diagnosis.found == ""
    assert diagnosis.words[0].startswith("labels look permuted (label → class that most of its images are taken for: ")
    assert "4 → 7, 7 → 4" in diagnosis.words[0]


def test_a_wholly_permuted_folder_is_named(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos()

    diagnosis = Planted(tmp_path, IMAGENET, pixels, labels).diagnosed(IMAGENET, (labels + 3) % 8, connection)

    assert diagnosis.found == ""
    assert "classes.txt" in diagnosis.words[0]


def test_a_second_diagnosis_is_taken_from_the_store(tmp_path: Path, connection: Connection) -> None:
    pixels, labels = photos(each=8)
    planted = Planted(tmp_path, IMAGENET, pixels, labels)
    planted.diagnosed(IMAGENET, labels, connection)

    _, reused = diagnose.diagnose(
        planted.graph(IMAGENET),
        planted.answers(IMAGENET, labels),
        Context(store=planted.store, connection=connection),
        images=images_of(
            planted.answers(IMAGENET, labels).images, skip_bad=planted.answers(IMAGENET, labels).skipped > 0
        ),
    )

    assert reused


@pytest.mark.parametrize(
    ("changes", "preprocess", "message"),
    [
        ({"labelled": False}, IMAGENET, "expected labelled images to diagnose with, found none"),
        ({}, BareInput(shape=(3, 8, 8)), "how images become the input of this model is not known"),
        ({"n": 7}, IMAGENET, "64 images, the reference logits are of 7"),
    ],
)
def test_what_cannot_be_diagnosed_is_said(
    tmp_path: Path, connection: Connection, changes: dict[str, object], preprocess: Preprocess | BareInput, message: str
) -> None:
    pixels, labels = photos(each=8)
    planted = Planted(tmp_path, IMAGENET, pixels, labels)
    np.savez(tmp_path / "photos.npz", images=pixels, labels=labels)
    answers = dataclasses.replace(planted.answers(IMAGENET, labels), **changes)  # type: ignore[arg-type]
    graph = dataclasses.replace(planted.graph(IMAGENET), preprocess=preprocess)

    with pytest.raises((InputError, CheckError), match=message):
        diagnose.diagnose(
            graph,
            answers,
            Context(store=planted.store, connection=connection),
            images=images_of(answers.images, skip_bad=answers.skipped > 0),
        )


# What is judged, without an engine


def judged(values: np.ndarray, labels: np.ndarray) -> Diagnosis:
    way = preprocess_variants.PreprocessVariant(name="as now", preprocess=IMAGENET, cure="")
    graph = Artifact(
        kind="onnx", name="", path="", sha256="", size_bytes=1, precision="fp32", inputs=(), outputs=(),
        preprocess=IMAGENET, stage="export", parent="",
    )  # fmt: skip
    answers = ReferenceLogits(path="", sha256="", images="some", n=len(labels), labelled=True, top1=None)
    found = diagnose.judge(graph, answers, [(way, way_scores.of_classes(values, labels))], "top-1")
    return diagnose.with_labels_read(found, values, labels)


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values.astype(np.float64))
    return np.asarray((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))


def test_a_softmax_of_a_softmax_is_named() -> None:
    labels = np.tile(np.arange(10), 20)
    sure = softmax(12 * np.eye(10, dtype=np.float32)[labels])

    words = judged(softmax(sure), labels).words[-1]

    assert words.startswith("the outputs look like a softmax of a softmax: none is above 0.232, though 98.1 % of the")
    assert words.endswith("export again with --head-activation none")


def test_a_single_softmax_is_only_mentioned() -> None:
    labels = np.tile(np.arange(10), 20)

    words = judged(softmax(12 * np.eye(10, dtype=np.float32)[labels]), labels).words[-1]

    assert words == "the outputs are probabilities already: do not put a softmax behind them"


def test_images_are_spread_over_the_classes() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)

    chosen = diagnose.spread(labels, 20)

    assert np.bincount(labels[chosen]).tolist() == [10, 8, 2]
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_fewer_images_than_asked_for_are_all_taken() -> None:
    assert diagnose.spread(np.array([1, 0, 1]), 512).tolist() == [0, 1, 2]


def test_always_naming_the_commonest_class_is_no_find() -> None:
    labels = np.array([0] * 60 + [1] * 40)
    values = np.eye(2, dtype=np.float32)[1 - labels]
    way = preprocess_variants.PreprocessVariant(name="BGR", preprocess=IMAGENET, cure="")
    graph = Artifact(
        kind="onnx", name="", path="", sha256="", size_bytes=1, precision="fp32", inputs=(), outputs=(),
        preprocess=IMAGENET, stage="export", parent="",
    )  # fmt: skip
    answers = ReferenceLogits(path="", sha256="", images="some", n=100, labelled=True, top1=None)

    ways = [(way, way_scores.of_classes(answer, labels)) for answer in (values, np.tile([1.0, 0.0], (100, 1)))]
    found = diagnose.judge(graph, answers, ways, "top-1")

    assert found.found == ""


# The ways


def test_every_way_differs_from_the_present_one_and_from_each_other() -> None:
    for present in (
        IMAGENET,
        changed(IMAGENET, resize=9),
        GRAY,
        changed(IMAGENET, color="bgr", interpolation="bicubic"),
    ):
        tried = [(way.preprocess, way.change) for way in preprocess_variants.variants_of(present, (20, 30, 3))]

        assert len(set(tried)) == len(tried)


def test_gray_pictures_of_a_color_net_are_not_tried_in_another_order() -> None:
    assert not [way for way in preprocess_variants.variants_of(IMAGENET, (8, 8)) if "BGR" in way.name]


def test_an_oblong_picture_is_also_tried_squashed_to_the_input() -> None:
    present = changed(IMAGENET, resize=10)
    way = next(way for way in preprocess_variants.variants_of(present, (20, 40, 3)) if way.change == "squashed")
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 20:] = 255

    found = images.to_tensors(way.pixels(lambda index: picture)(0), way.preprocess)

    assert found.shape == (3, 8, 8)
    assert found[0, 0, 0] < 0 < found[0, 0, -1]  # both halves are still there
    assert (
        way.cure
        == "no flag does it: store the images scaled to 8×8 px, each side on its own, and export without --resize"
    )


def test_another_filter_is_a_flag_too() -> None:
    way = next(
        way
        for way in preprocess_variants.variants_of(changed(IMAGENET, resize=10), (20, 20, 3))
        if way.name == "bicubic"
    )

    assert way.cure.endswith("--resize 10 --interpolation bicubic")


def test_flags_are_those_of_export() -> None:
    assert (
        preprocess_variants.export_flags(changed(GRAY, resize=9))
        == "--input 8x8 --color gray --mean 0.3 --std 0.35 --resize 9 --interpolation bilinear"
    )
