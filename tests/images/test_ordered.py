"""Tests of images/ordered.py: results in order and the same as one after the other; no thread outlives the iterator."""

import dataclasses
import threading

import numpy as np
import pytest
from image_sets import GRAY, opened, pixels, save

from deploy_kit import images
from deploy_kit.base.errors import InputError
from deploy_kit.images.ordered import AHEAD, THREADS, in_order


@pytest.fixture(autouse=True)
def no_thread_stays():
    """After each test no thread of a pool is left."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("images")] == []


@pytest.fixture
def folder(tmp_path):
    """Forty images of 4×6 px."""
    for index, image in enumerate(pixels(40, 4, 6)):
        save(tmp_path / f"{index:02}.png", image)
    return opened(tmp_path)


def test_results_come_in_order():
    assert list(in_order(lambda index: index * index, 500)) == [index * index for index in range(500)]


@pytest.mark.skipif(THREADS == 1, reason="one core: nothing overtakes")
def test_results_come_in_order_when_the_first_takes_longest():
    last = threading.Event()

    def work(index):
        if index == 0:
            assert last.wait(10)
        if index == 1:
            last.set()
        return index

    assert list(in_order(work, 3)) == [0, 1, 2]


def test_nothing_to_do_gives_nothing():
    assert list(in_order(lambda index: index, 0)) == []


def test_a_bounded_number_is_made_before_it_is_asked_for():
    begun = []
    results = in_order(lambda index: begun.append(index) or index, 500)

    next(results)
    results.close()

    assert len(begun) <= AHEAD + 1


def test_an_error_comes_at_the_place_of_its_result():
    def work(index):
        if index == 7:
            raise InputError("the seventh")
        return index

    seen = []
    with pytest.raises(InputError, match="the seventh"):
        for result in in_order(work, 500):
            seen.append(result)

    assert seen == list(range(7))


def test_files_decoded_on_threads_give_the_bits_of_one_after_the_other(folder):
    wanted = np.stack([images.to_tensors(folder.load(index), GRAY) for index in range(folder.n)])

    assert np.concatenate(list(folder.batches(GRAY, 7))).tobytes() == wanted.tobytes()


def test_batches_that_are_not_asked_for_are_not_made(folder):
    loaded = []
    watched = dataclasses.replace(folder, load=lambda index: loaded.append(index) or folder.load(index))

    batches = watched.batches(GRAY, 2)
    next(batches)
    batches.close()

    assert len(loaded) <= 2 + AHEAD


def test_an_iterator_that_is_dropped_ends_its_threads(folder):
    assert next(folder.batches(GRAY, 2)).shape == (2, 1, 4, 6)


def test_an_error_in_the_caller_ends_the_threads(folder):
    with pytest.raises(ZeroDivisionError):
        for _ in folder.batches(GRAY, 2):
            raise ZeroDivisionError


def test_an_image_that_does_not_fit_is_named_by_its_file(folder):
    with pytest.raises(InputError) as caught:
        list(folder.batches(dataclasses.replace(GRAY, height=5), 2))

    assert str(caught.value) == f"{folder.name}: 00.png: expected 5×6 px, found 4×6"
