"""Tasks sequence, embed and regress by brute force; and which task an output has."""

import functools

import numpy as np
import pytest

from deploy_kit.accuracy import tasks
from deploy_kit.accuracy.tasks import TaskSettings, embed, regress, sequence
from deploy_kit.base.errors import InputError, UnknownNameError

ANY = TaskSettings(shape=(1,))


@functools.cache
def distance(one: str, other: str) -> int:
    """Levenshtein's recursion as it is written down."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@pytest.mark.parametrize(("one", "other"), [("kitten", "sitting"), ("", "abc"), ("abcd", "abcd"), ("ab", "ba")])
def test_edits_are_counted(one: str, other: str) -> None:
    assert sequence.edit_distance(tuple(map(ord, one)), tuple(map(ord, other))) == distance(one, other)


def test_ctc_merges_repetitions_and_leaves_blanks_out() -> None:
    steps = [0, 3, 3, 0, 3, 1, 1, 0]

    assert sequence.greedy_decoded(np.eye(4)[steps], 0, ANY) == (3, 3, 1)


def test_character_errors_are_summed_before_they_are_divided() -> None:
    sums = sequence.edits((1, 2), (1, 2, 3, 4), ANY) + sequence.edits((5,), (5,), ANY)

    assert float(sequence.one_minus_cer(sums)) == pytest.approx(1 - 2 / 5)


def test_the_nearest_neighbour_is_that_of_all_cosines() -> None:
    vectors = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    of = TaskSettings(shape=(5,), gallery=vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)

    assert [embed.nearest_neighbour(vectors[i], i, of) for i in range(12)] == cosines.argmax(axis=1).tolist()


def test_errors_of_numbers_are_in_units_of_the_labels() -> None:
    scoring = regress.TASK.scoring
    found, true = np.array([[1.0, 2.0], [4.0, 0.0]]), np.array([[1.5, 2.0], [3.0, 1.0]])
    assert scoring is not None

    sums = sum(scoring.counts(f, t, ANY) for f, t in zip(found, true, strict=True))

    assert float(scoring.score(sums)) == pytest.approx(1 - 2.5 / 7.5)
    assert scoring.more(sums)["mean absolute error"] == pytest.approx(np.abs(found - true).mean())


@pytest.mark.parametrize(
    ("shape", "multilabel", "name"),
    [
        ((10,), False, "classify"),
        ((10,), True, "multilabel"),
        ((3, 8, 8), False, "segment"),
        ((1, 4, 8, 8), False, "segment"),
        ((20, 30), False, "sequence"),
    ],
)
def test_a_task_is_inferred_from_the_shape_and_says_so(shape: tuple[int, ...], multilabel: bool, name: str) -> None:
    task, source = tasks.choose_task(None, shape, multilabel=multilabel)

    assert task == name
    assert source.startswith("inferred")


def test_a_stated_task_must_take_the_output() -> None:
    assert tasks.choose_task("embed", (64,)) == ("embed", "stated")
    with pytest.raises(
        InputError, match="task 'segment': expected an output N×K×H×W or N×K×D×H×W, found N×64"
    ) as caught:
        tasks.choose_task("segment", (64,))
    assert caught.value.hint == "tasks of such an output: classify, embed, multilabel, regress"


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        tasks.choose_task("segmnt", (3, 8, 8))
    assert "segment" in caught.value.hint


def test_an_output_of_no_task_is_refused() -> None:
    with pytest.raises(InputError, match="no task takes an output N×1×2×3×4×5"):
        tasks.choose_task(None, (1, 2, 3, 4, 5))
