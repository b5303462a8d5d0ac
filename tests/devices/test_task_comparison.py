"""What is kept of answers that differ: strings with their labels, and of volumes the slice that differs most."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from deploy_kit.accuracy.tasks import TaskSettings, scoring_of
from deploy_kit.devices import task_comparison
from deploy_kit.images import ImageSource
from deploy_kit.images.sets import Truth
from deploy_kit.records.artifacts import BareInput

SHAPE = BareInput(shape=(1, 4, 4))


def case_of(task: str, gallery: np.ndarray, **settings: Any) -> task_comparison.TaskCase:
    images = dataclasses.replace(ImageSource(name="synthetic").open(SHAPE), n=len(gallery))
    return task_comparison.TaskCase(
        scoring=scoring_of(task),
        settings=TaskSettings(shape=gallery.shape[1:], gallery=gallery, **settings),
        images=images,
        preprocess=SHAPE,
        labelled=False,
    )


def labelled(case: task_comparison.TaskCase, texts: list[str]) -> task_comparison.TaskCase:
    names = tuple(f"set.npz: texts[{index}]" for index in range(len(texts)))
    load: Callable[[int], Any] = texts.__getitem__
    truth = Truth(kind="texts", names=names, hashes=names, load=load)
    return dataclasses.replace(case, images=dataclasses.replace(case.images, truth=truth), labelled=True)


def spoken(*strings: str) -> np.ndarray:
    """Logits (n, 4, 5) that decode to strings of the symbols 1 to 4."""
    return np.stack([np.eye(5, dtype=np.float32)[[*map(int, one), *[0] * (4 - len(one))]] for one in strings])


def test_strings_that_differ_most_come_first_each_with_its_label() -> None:
    wanted, found = spoken("123", "12", "4321", "1"), spoken("123", "32", "1234", "")
    case = labelled(case_of("sequence", wanted), ["1 2 3", "1 2", "4 3 2 1", "1 3"])

    arrays = task_comparison.compare_outputs(found, case, "an engine")

    assert arrays["places"].tolist() == [2, 3, 1]  # edits over the longer string: 4 of 4, 1 of 1, 1 of 2
    assert arrays["texts"].tolist() == [["4 3 2 1", "1 2 3 4", "4 3 2 1"], ["1", "", "1 3"], ["1 2", "3 2", "1 2"]]


def test_symbols_that_have_names_are_written_as_characters() -> None:
    case = case_of("sequence", spoken("123", "21"), classes=("-", "a", "b", "c", "d"))

    arrays = task_comparison.compare_outputs(spoken("123", "43"), case, "an engine")

    assert arrays["texts"].tolist() == [["ba", "dc", ""]]


def test_of_a_volume_the_slice_that_differs_most_is_kept() -> None:
    wanted = np.random.default_rng(0).standard_normal((2, 3, 5, 6, 7)).astype(np.float32)
    found = wanted.copy()
    found[1, :, 2, :3] *= -1
    found[1, :, 4, :5] *= -1
    before, after = wanted[1].argmax(0), found[1].argmax(0)

    arrays = task_comparison.compare_outputs(found, case_of("segment", wanted), "an engine")

    assert arrays["places"].tolist() == [1]
    assert arrays["slices"].tolist() == [[5, 5]]
    np.testing.assert_array_equal(arrays["maps"][0], np.stack([before[4], after[4]]))


def test_equal_answers_leave_nothing_to_show() -> None:
    wanted = spoken("123", "12")

    arrays = task_comparison.compare_outputs(wanted * 2, case_of("sequence", wanted), "an engine")

    assert arrays["alike"].tolist() == [1, 1]
    assert "places" not in arrays
