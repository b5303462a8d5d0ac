"""Scores of labelled images: worked examples, pairs counted one by one, and that each can fail."""

import itertools
import math

import numpy as np
import pytest

from deploy_kit.accuracy import scores
from deploy_kit.accuracy.scores import auroc, flips
from deploy_kit.accuracy.scores import classification as single
from deploy_kit.accuracy.scores import confidence as calibration


def f32(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values.astype(np.float64))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)


# What the outputs are


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (f32([0.25, 0.75], [1, 0]), "softmax"),
        (f32([0.25, 0.7504], [1, 0]), "softmax"),
        (f32([0.25, 0.77], [1, 0]), "sigmoid"),
        (f32([0.9], [0.1]), "sigmoid"),
        (f32([1.0], [1.0]), "sigmoid"),
        (f32([0.25, 0.75], [2, -1]), "logits"),
        (f32([-0.29, -1.39], [-0.69, -0.69]), "logits"),
        (f32([math.nan, 0.5], [0.5, 0.5]), "logits"),
    ],
)
def test_outputs_that_are_probabilities_are_recognized(values: np.ndarray, kind: str) -> None:
    assert calibration.output_kind(values) == kind


def test_the_calibration_error_is_the_same_for_logits_their_log_softmax_and_their_softmax(logits: np.ndarray) -> None:
    labels = np.random.default_rng(1).integers(0, 8, 200)
    sure = softmax(logits)

    found = [
        calibration.expected_calibration_error(v, calibration.output_kind(v), labels)
        for v in (logits, np.log(sure), sure)
    ]

    assert found == pytest.approx([found[0]] * 3, abs=1e-6)


def test_a_second_softmax_would_change_the_calibration_error(logits: np.ndarray) -> None:
    labels = logits.argmax(axis=1)
    sure = softmax(3 * logits)

    assert (
        calibration.expected_calibration_error(sure, "softmax", labels)
        < calibration.expected_calibration_error(sure, "logits", labels) - 0.1
    )


# Calibration


def test_the_calibration_error_of_a_worked_example() -> None:
    # Bins of 1/15: {0.95, 0.96} in (14/15, 1] with one right; {0.5} in (7/15, 8/15] wrong; {0.6} on its edge, right.
    confidence = np.array([0.95, 0.96, 0.5, 0.6])
    right = np.array([True, False, False, True])

    found = calibration.calibration_error(confidence, right)

    assert found == pytest.approx((abs(1 - 1.91) + 0.5 + 0.4) / 4)


def test_a_predictor_that_is_always_sure_is_off_by_its_errors() -> None:
    assert calibration.calibration_error(np.ones(10), np.arange(10) < 7) == pytest.approx(0.3)


def test_confidences_drawn_right_are_calibrated() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0, 1, 200_000)

    assert calibration.calibration_error(confidence, random.uniform(0, 1, 200_000) < confidence) < 0.005


def test_with_several_labels_every_answer_counts_by_its_sigmoid() -> None:
    values, labels = f32([0.0, 100.0], [-100.0, 0.0]), np.array([[1, 1], [0, 0]], np.uint8)

    # 0.5 twice, one of them yes: right on average; 1 is yes and 0 is no
    assert calibration.expected_calibration_error(values, "logits", labels) == pytest.approx(0, abs=1e-9)


def test_an_output_that_is_no_number_has_no_calibration_error() -> None:
    assert math.isnan(calibration.expected_calibration_error(f32([math.nan, 1.0]), "logits", np.array([1])))


# One label an image


def test_top_k_of_a_worked_example() -> None:
    values = f32([5, 4, 3, 2], [5, 4, 3, 2], [5, 4, 3, 2], [math.nan, 4, 3, 2])

    found = [single.top_k(values, np.array([0, 1, 3, 1]), k) for k in (1, 2, 4)]

    assert found == [0.25, 0.5, 0.75]


def test_who_gives_one_value_to_all_classes_gains_nothing_in_top_k() -> None:
    labels = np.arange(100)

    assert [single.top_k(np.zeros((100, 100)), labels, k) for k in (1, 5)] == [0.01, 0.05]


def test_the_worst_class_is_named_with_its_change() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 3])
    reference = np.eye(4, dtype=np.float32)[labels]
    candidate = reference.copy()
    candidate[2:5] = np.eye(4, dtype=np.float32)[0]

    worst = scores.score_outputs(reference, candidate, labels, "class {}".format).worst

    assert worst is not None
    assert (worst.name, worst.n, worst.reference, worst.found) == ("class 1", 4, 1.0, 0.25)


def test_a_class_without_images_has_no_recall() -> None:
    found = scores.score_outputs(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), np.array([0, 1, 1, 3]))

    assert [entry.index for entry in found.classes] == [0, 1, 3]


@pytest.mark.parametrize(("classes", "there"), [(5, False), (6, True)])
def test_top_5_is_asked_of_more_than_five_classes(classes: int, there: bool) -> None:
    values = np.eye(classes, dtype=np.float32)

    found = scores.score_outputs(values, values, np.arange(classes))

    assert (found.top5 is not None) is there


# Labels that look exchanged


def planted(order: list[int], right: float = 0.9, each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Give outputs that hit the true class with a share, and labels that call class i `order[i]`."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(order)), each)
    taken = np.where(random.uniform(size=len(truth)) < right, truth, random.integers(0, len(order), len(truth)))
    return np.eye(len(order), dtype=np.float32)[taken], np.array(order)[truth]


def test_a_permutation_of_the_labels_is_found_whole() -> None:
    order = [3, 0, 2, 1, 4]

    assert dict(single.permuted_labels(*planted(order))) == {3: 0, 0: 1, 1: 3}


@pytest.mark.parametrize("right", [1.0, 0.9, 0.6, 0.3, 0.0])
def test_labels_in_order_are_never_called_permuted(right: float) -> None:
    assert single.permuted_labels(*planted(list(range(10)), right)) == ()


def test_two_classes_that_a_net_takes_for_one_are_no_permutation() -> None:
    values, labels = planted(list(range(5)), 1.0)
    values[labels == 1] = np.eye(5, dtype=np.float32)[2]

    assert single.permuted_labels(values, labels) == ()


def test_a_few_images_a_class_prove_no_permutation() -> None:
    assert single.permuted_labels(*planted([1, 0, 2], 1.0, each=7)) == ()


def test_labels_that_explain_little_of_a_low_score_are_no_permutation() -> None:
    values, labels = planted(list(range(10)), 0.0)
    values[labels == 1] = np.eye(10, dtype=np.float32)[3]  # as where images of another size are taken for one class

    assert single.mistaken_labels(values, labels) == ((1, 3),)
    assert single.describe_permuted_labels(values, labels, str) == ()
    (words,) = single.describe_mistaken_labels(values, labels, "c{}".format)
    assert words.startswith("most images of a label are taken for one other class (c1 → c3), and no other order of the")
    assert "--input, --mean, --std" in words


def test_labels_that_look_permuted_are_not_called_mistaken_too() -> None:
    assert single.describe_mistaken_labels(*planted([3, 0, 2, 1, 4]), str) == ()


def test_many_exchanged_labels_are_cut_off_in_words() -> None:
    (words,) = single.describe_permuted_labels(*planted([*range(1, 13), 0], 1.0), "c{}".format)

    assert "c1 → c0, " in words
    assert " and 3 more)" in words


# Flips


def test_margins_are_between_the_two_largest() -> None:
    assert flips.top1_margins(f32([1, 5, 3], [2, 2, 0])).tolist() == [2, 0]


def test_flips_are_counted_by_how_close_a_call_they_were() -> None:
    reference = np.zeros((100, 2), np.float32)
    reference[:, 0] = np.arange(100) + 1
    candidate = reference.copy()
    candidate[[1, 2, 50], 1] = 1000

    found = flips.find_flips(reference, candidate, "photo {}".format)

    assert (found.n, found.close, found.largest_margin) == (3, 2, 51)
    assert [flip.name for flip in found.worst] == ["photo 50", "photo 2", "photo 1"]


def test_an_answer_that_is_no_number_is_a_flip() -> None:
    found = flips.find_flips(f32([2, 1], [2, 1]), f32([2, math.nan], [2, 1]), str)

    assert [flip.image for flip in found.worst] == [0]


def test_a_flip_has_the_margins_of_both_and_the_label() -> None:
    reference, candidate = f32([5, 1, 0], [1, 3, 0]), f32([5, 1, 0], [2.5, 2, 1])

    (flip,) = flips.find_flips(reference, candidate, str, np.array([0, 2])).worst

    assert (flip.reference, flip.found, flip.label) == (1, 0, 2)
    assert (flip.margin, flip.found_margin) == (2.0, 0.5)


def test_infinite_outputs_have_no_margin_and_no_warning() -> None:
    (flip,) = flips.find_flips(f32([2, 1]), f32([math.inf, math.inf]), str).worst

    assert flip.found_margin is not None and math.isnan(flip.found_margin)


def test_no_flip_has_no_margin() -> None:
    found = flips.find_flips(f32([2, 1]), f32([3, 1]), str)

    assert (found.n, found.largest_margin) == (0, 0)


# AUROC


def counted(values: np.ndarray, labels: np.ndarray) -> float:
    """Count every pair: 1 for the right order, a half for a tie."""
    pairs = list(itertools.product(values[labels == 1], values[labels == 0]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def test_auroc_of_a_worked_example() -> None:
    # Fawcett (2006) style: scores .8 .4 .35 .1 of classes 1 0 1 0: three of four pairs are in order.
    values, labels = f32([0.1], [0.4], [0.35], [0.8]), np.array([[0], [0], [1], [1]])

    assert auroc.auroc_by_class(values, labels).tolist() == [0.75]


@pytest.mark.parametrize("steps", [3, 1000])
def test_auroc_is_the_share_of_pairs_in_order_with_ties_a_half(steps: int) -> None:
    random = np.random.default_rng(steps)
    values = random.integers(0, steps, (60, 4)).astype(np.float32)
    labels = random.integers(0, 2, (60, 4)).astype(np.uint8)

    wanted = [counted(values[:, k], labels[:, k]) for k in range(4)]
    assert auroc.auroc_by_class(values, labels).tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_class_with_one_outcome_has_no_auroc() -> None:
    labels = np.array([[1, 0], [1, 1]], np.uint8)

    found = scores.score_outputs(f32([1, 2], [3, 4]), f32([1, 2], [3, 4]), labels)

    assert [entry.index for entry in found.classes] == [1]
    assert found.mean == 1


def test_the_bootstrap_interval_of_a_drop_holds_it_and_is_the_same_every_time() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (300, 3)).astype(np.uint8)
    reference = (labels + random.standard_normal((300, 3))).astype(np.float32)
    candidate = reference + random.standard_normal((300, 3)).astype(np.float32) / 2

    found = auroc.auroc_drop(reference, candidate, labels)

    assert found == auroc.auroc_drop(reference, candidate, labels)
    lost = (auroc.auroc_by_class(reference, labels) - auroc.auroc_by_class(candidate, labels)).mean()
    assert found.points == pytest.approx(100 * lost)
    assert found.low < found.points < found.high < 10


@pytest.mark.slow
def test_a_bootstrap_over_images_agrees_with_one_written_out() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, (80, 1)).astype(np.uint8)
    reference = (labels + random.standard_normal((80, 1))).astype(np.float32)
    candidate = reference + random.standard_normal((80, 1)).astype(np.float32)
    found, drawn = auroc.auroc_drop(reference, candidate, labels), []
    for _ in range(1000):
        picked = random.integers(0, 80, 80)
        drawn.append(
            counted(reference[picked, 0], labels[picked, 0]) - counted(candidate[picked, 0], labels[picked, 0])
        )

    assert (found.low, found.high) == pytest.approx(100 * np.percentile(drawn, [2.5, 97.5]), abs=1.2)


def test_a_drop_of_auroc_on_too_few_images_says_how_many_would_tell() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (100, 2)).astype(np.uint8)
    reference = (labels + random.standard_normal((100, 2))).astype(np.float32)
    candidate = reference + random.standard_normal((100, 2)).astype(np.float32) / 4
    loose = auroc.auroc_drop(reference, candidate, labels)
    limit = (loose.points + loose.high) / 2

    found = auroc.auroc_drop(reference, candidate, labels, limit)

    # half of the interval must shrink to a half, with a chance of 80 %: (2 · 2.80 / 1.96)² times as many
    assert found.needed == pytest.approx(100 * (2 * 2.801585 / 1.959964) ** 2, rel=0.01)


def test_no_number_has_no_drop_of_auroc() -> None:
    labels = np.array([[1], [0]], np.uint8)

    assert math.isnan(auroc.auroc_drop(f32([1], [0]), f32([math.nan], [0]), labels).points)


def test_where_no_class_has_both_outcomes_there_is_no_drop() -> None:
    assert math.isnan(auroc.auroc_drop(f32([1], [0]), f32([1], [0]), np.ones((2, 1), np.uint8)).points)


@pytest.mark.parametrize(
    ("right", "n", "classes", "guessing"),
    [
        (10, 100, 10, True),
        (19, 100, 10, True),
        (20, 100, 10, False),
        (9, 90, 10, False),
        (500, 1000, 2, True),
        (600, 1000, 2, False),
    ],
)
def test_network_that_is_right_as_often_as_a_guess_is_told(right: int, n: int, classes: int, guessing: bool) -> None:
    found = single.describe_guessing(np.arange(n) < right, classes)

    assert bool(found) == guessing
    assert all(f"the network is right in {right / n:.2%} of {n:,} images" in text for text in found)
