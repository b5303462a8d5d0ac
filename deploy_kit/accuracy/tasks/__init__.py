"""What an output means: a task is a file, and says which outputs it takes and how an answer is scored.

An answer is what an application takes from an output: a class of each pixel, a string, a vector. It is scored by counts
of each image that can be summed, so that a set of any size is streamed; `jackknife` puts an interval over images on the
score of the sums. Outputs of one row of classes an image keep the measures of `scores/`: their tasks have no `answer`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import InputError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What a task must know of the whole set.

    Attributes:
        shape: Shape of one image's output.
        probabilities: Whether all of the checkpoint's outputs lie in 0..1, so that they are no logits.
        ignore_index: Class number in labels that is not judged; None judges all.
        gallery: (n, …) the checkpoint's outputs on the whole set; mapped from a file.
        classes: Names of the classes; empty where only numbers are known.
    """

    shape: tuple[int, ...]
    probabilities: bool = False
    ignore_index: int | None = None
    gallery: np.ndarray | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How answers are compared and scored, one image at a time.

    Attributes:
        answer: (output of one image, its index, settings) → what an application takes from it.
        agreement_name: Name of the share of the answers that agrees.
        labels: Kind of labels that it takes: ``masks``, ``texts``, ``numbers`` or ``classes``.
        counts: (answer, label, settings) → (M,) float64 counts whose sums give the score.
        score: Sums (…, M) → score (…,), 1 for the best.
        measure: Name of the score.
        by_class: Sums (M,) → (classes,) score of each class, NaN where no label has it, and how many labels have it;
            None where answers are no classes.
        agreement: (checkpoint's answer, engine's answer) → how much of it agrees, and of how much; by default all or
            nothing of one.
        more: Sums (M,) → further scores by name, in 0..1.
        blind: Sums (M,) → score of an answer that does not look at the image; 0 where the sums do not tell it.
        note: Settings → sentence on what was decided for the user; empty if nothing was.
    """

    answer: Callable[[np.ndarray, int, TaskSettings], Any]
    agreement_name: str
    labels: str
    counts: Callable[[Any, Any, TaskSettings], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]
    measure: str
    by_class: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    agreement: Callable[[Any, Any], tuple[float, float]] = lambda reference, found: (float(reference == found), 1.0)
    more: Callable[[np.ndarray], dict[str, float]] = lambda sums: {}
    blind: Callable[[np.ndarray], float] = lambda sums: 0.0
    note: Callable[[TaskSettings], str] = lambda settings: ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an output means.

    Attributes:
        takes: Outputs that it takes, in words, e.g. ``N×K×H×W``.
        fits: Shape of one image's output → whether the task takes it.
        inferred: Whether outputs of this shape are taken for it where nobody states a task.
        scoring: How its answers are scored; None for a row of classes an image, which `scores/` measures.
    """

    takes: str
    fits: Callable[[tuple[int, ...]], bool]
    inferred: bool
    scoring: Scoring | None


CATALOGUE = Catalogue[Task]("deploy_kit.accuracy.tasks", "TASK", "task", closed=True)


def choose_task(stated: str | None, shape: tuple[int, ...], *, multilabel: bool = False) -> tuple[str, str]:
    """Choose the task of an output.

    Args:
        stated: Name of the task that the user states; None for the one that the shape suggests.
        shape: Shape of one image's output.
        multilabel: Whether images have several labels each.

    Returns:
        Name of the task, and where it is from.

    Raises:
        UnknownNameError: No task has this name.
        InputError: The stated task does not take such an output, or no task does.
    """
    named = "×".join(map(str, ("N", *shape)))
    if stated is not None:
        task = CATALOGUE.get(stated)
        if task.fits(shape):
            return stated, "stated"
        fitting = ", ".join(name for name in CATALOGUE.names() if CATALOGUE.get(name).fits(shape))
        raise InputError(
            f"task '{stated}': expected an output {task.takes}, found {named}",
            hint=f"tasks of such an output: {fitting}" if fitting else "choose another output: --output NAME",
        )
    if multilabel and len(shape) == 1:
        return "multilabel", f"inferred: output {named}, and several labels an image"
    for name in CATALOGUE.names():
        task = CATALOGUE.get(name)
        if task.inferred and task.fits(shape):
            return name, f"inferred from the output's shape {named}; --task says otherwise"
    raise InputError(f"no task takes an output {named}", hint="choose another output: --output NAME")


def expect_rows(task: str, where: str, what: str) -> None:
    """Refuse outputs that are streamed where one row of classes an image is needed.

    Args:
        task: Name of the task; empty for one row of classes an image.
        where: Name of the images.
        what: What needs it.

    Raises:
        InputError: The outputs are of another task.
    """
    if task:
        raise InputError(
            f"{where}: {what} takes one row of classes an image, and the outputs are of task '{task}'",
            hint=f"leave it out: check, quantize, build, bench and report take task '{task}'",
        )


def scoring_of(name: str) -> Scoring:
    """Return how a task that is streamed is scored.

    Raises:
        UnknownNameError: No such task, or its outputs are one row of classes an image.
    """
    found = CATALOGUE.get(name).scoring
    if found is None:
        raise UnknownNameError(f"task '{name}' has no counts of single images")
    return found
