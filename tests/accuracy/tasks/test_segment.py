"""Task segment against scikit-learn's scores and counting by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from deploy_kit.accuracy.tasks import TaskSettings, segment


def settings(*shape: int, ignore_index: int | None = None, probabilities: bool = False) -> TaskSettings:
    return TaskSettings(shape=shape, ignore_index=ignore_index, probabilities=probabilities)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("sides", [(9, 7), (3, 5, 4)])
def test_scores_are_those_of_scikit_learn(sides: tuple[int, ...]) -> None:
    outputs, labels = maps(3, 4, *sides), np.random.default_rng(1).integers(0, 4, (3, *sides))
    of = settings(4, *sides)
    answers = [segment.class_map(output, 0, of) for output in outputs]

    sums = sum(segment.overlaps(answer, label, of) for answer, label in zip(answers, labels, strict=True))

    true, found = labels.ravel(), np.stack(answers).ravel()
    by_class, n = segment.iou_by_class(sums)
    assert by_class == pytest.approx(sklearn_metrics.jaccard_score(true, found, average=None))
    assert float(segment.mean_iou(sums)) == pytest.approx(sklearn_metrics.jaccard_score(true, found, average="macro"))
    assert n.tolist() == np.bincount(true).tolist()
    more = segment.more_scores(sums)
    assert more["mean Dice"] == pytest.approx(sklearn_metrics.f1_score(true, found, average="macro"))
    assert more["pixel accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, found))


def test_ignored_pixels_are_not_counted() -> None:
    of, label = settings(3, 2, 3, ignore_index=255), np.array([[0, 1, 255], [2, 255, 1]])
    answer = np.array([[0, 0, 2], [2, 1, 1]], np.int16)

    both, found, true = np.split(segment.overlaps(answer, label, of), 3)

    assert (both.tolist(), found.tolist(), true.tolist()) == ([1, 1, 1], [2, 1, 1], [1, 2, 1])


def test_a_class_without_labels_is_not_in_the_mean() -> None:
    of, label = settings(3, 1, 4), np.array([[0, 0, 1, 1]])
    answer = np.array([[0, 0, 1, 2]], np.int16)

    assert float(segment.mean_iou(segment.overlaps(answer, label, of))) == pytest.approx((1 + 0.5) / 2)


def test_one_channel_tells_two_classes_apart() -> None:
    output = np.array([[[-1.0, 0.2, 0.7]]], np.float32)

    assert segment.class_map(output, 0, settings(1, 1, 3)).tolist() == [[0, 1, 1]]
    assert segment.class_map(output, 0, settings(1, 1, 3, probabilities=True)).tolist() == [[0, 0, 1]]
    assert len(segment.overlaps(np.zeros((1, 3), np.int16), np.zeros((1, 3), int), settings(1, 1, 3))) == 6


def test_a_pixel_that_is_no_number_agrees_with_nothing() -> None:
    output, of = maps(4, 3, 3), settings(4, 3, 3)
    broken = output.copy()
    broken[2, 1, 1] = np.nan
    before, after = segment.class_map(output, 0, of), segment.class_map(broken, 0, of)

    assert segment.pixels_alike(before, after) == (8, 9)
    assert segment.pixels_alike(after, after) == (8, 9)
    assert segment.overlaps(after, before.astype(int), of)[:4].sum() == 8
