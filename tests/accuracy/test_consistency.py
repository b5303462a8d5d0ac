"""An engine that contradicts itself is caught in each way it can; one that does not, is not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_ins import PretendLink

from deploy_kit.accuracy import consistency
from deploy_kit.devices import inference
from deploy_kit.devices.inference import InferenceTarget
from deploy_kit.records.parity import Consistency

IMAGES = np.random.default_rng(0).standard_normal((16, 1, 4, 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((16, 5)).astype(np.float32)
Fault = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]


def right(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    return outputs


def last_row_wrong(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    outputs[-1] += 1
    return outputs


def leaks_between_rows(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    return np.asarray(outputs - outputs.mean(axis=0))


def rows_in_reverse(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    return outputs[::-1]


def drifts(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    return np.asarray(outputs * (1 + 0.01 * len(before)))


def answers_the_run_before(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    stale = before[-1] if before else outputs
    return np.resize(stale, outputs.shape)


def sometimes_nan(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    if len(before) == 1:
        outputs[0, 0] = math.nan
    return outputs


def examined(folder: Path, fault: Fault, fixed_batch: int = 0) -> Consistency:
    """Examine a stand-in that multiplies by a matrix, a batch at a time as the worker does, with a fault in it."""
    before: list[np.ndarray] = []

    def answer(arguments: dict[str, Any]) -> dict[str, int]:
        images = np.load(arguments["inputs"])
        size = fixed_batch or int(arguments["batch"])
        found = []
        for start in range(0, len(images), size):
            rows = images[start : start + size].reshape(-1, 16)
            full = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)]) if fixed_batch else rows
            true = full @ WEIGHTS
            found.append(fault(true.copy(), before)[: len(rows)])
            before.append(true)
        np.save(arguments["outputs"], np.concatenate(found))
        return {"n": len(images)}

    connection = PretendLink(folder, {"open": {"batch": fixed_batch, "settings": {}}, "infer": answer})
    with inference.loaded_engine(
        connection, InferenceTarget(engine="pretended", path=Path("engine"), options={})
    ) as engine:
        return consistency.examine_consistency(engine.ask, IMAGES, engine.batch, "fp32")


@pytest.mark.parametrize("fixed_batch", [0, 1, 4, 32])
def test_an_engine_that_agrees_with_itself_has_no_failure(tmp_path: Path, fixed_batch: int) -> None:
    found = examined(tmp_path, right, fixed_batch)

    assert found.failures == ()
    assert found.again == 0


@pytest.mark.parametrize(
    ("fault", "fixed_batch", "words"),
    [
        (last_row_wrong, 0, "the same image at another place in a batch"),
        (last_row_wrong, 4, "the same image at another place in a batch"),
        (leaks_between_rows, 0, "an image alone and in a batch of 10"),
        (leaks_between_rows, 4, "an image alone and in a batch of 4"),
        (rows_in_reverse, 0, "an image alone and in a batch of 10"),
        (drifts, 0, "the same images run again"),
        (drifts, 1, "the same images run again"),
        (answers_the_run_before, 0, "the same images run again"),
        (answers_the_run_before, 1, "the same images run again"),
        (sometimes_nan, 0, "the same images run again"),
    ],
)
def test_each_way_to_contradict_oneself_is_named(tmp_path: Path, fault: Fault, fixed_batch: int, words: str) -> None:
    found = examined(tmp_path, fault, fixed_batch)

    assert any(failure.startswith(f"not consistent: {words} differ by ") for failure in found.failures)


def test_an_engine_of_one_image_a_run_is_not_asked_for_batches(tmp_path: Path) -> None:
    assert examined(tmp_path, right, 1).batches is None


def test_sums_in_another_order_are_allowed_for(tmp_path: Path) -> None:
    def rounds_otherwise(outputs: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
        return np.asarray(outputs * (1 + 1e-6 * len(outputs)))

    found = examined(tmp_path, rounds_otherwise)

    assert found.batches is not None
    assert 0 < found.batches < found.allowed
    assert found.failures == ()


def test_a_failure_says_by_how_much() -> None:
    found = Consistency(n=10, batch=10, positions=0.5, batches=None, again=0.0, allowed=2e-3)

    assert found.failures == (
        "not consistent: the same image at another place in a batch differ by 0.5 of the largest output, "
        "at most 0.002 allowed",
    )


def test_one_image_is_enough(tmp_path: Path) -> None:
    def ask(images: np.ndarray, batch: int) -> np.ndarray:
        return np.asarray(images.reshape(len(images), -1) @ WEIGHTS)

    assert consistency.examine_consistency(ask, IMAGES[:1], 0, "fp32").failures == ()


def test_at_most_64_images_are_run() -> None:
    asked = []

    def ask(images: np.ndarray, batch: int) -> np.ndarray:
        asked.append(len(images))
        return np.asarray(images.reshape(len(images), -1) @ WEIGHTS)

    consistency.examine_consistency(ask, IMAGES, 0, "int8")

    assert sum(asked) == 64
