"""Numbers: N×D, scored with labels by 1 - Σ|error| / Σ|label|, the mean absolute error in units of the labels.

Without labels, agreement is 1 - Σ|difference| / Σ|checkpoint's number|: one minus the relative error.
"""

import numpy as np

from deploy_kit.accuracy.tasks import Scoring, Task, TaskSettings


def _alike(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    size = float(np.abs(reference).sum())
    return size - float(np.abs(reference - found).sum()), size


def _errors(found: np.ndarray, label: np.ndarray, settings: TaskSettings) -> np.ndarray:
    return np.array([np.abs(found - label).sum(), np.abs(label).sum(), label.size], np.float64)


TASK = Task(
    takes="N×D",
    fits=lambda shape: len(shape) == 1,
    inferred=False,
    scoring=Scoring(
        answer=lambda output, index, settings: output.astype(np.float64),
        agreement=_alike,
        agreement_name="1 - relative error",
        labels="numbers",
        counts=_errors,
        score=lambda sums: np.asarray(1 - sums[..., 0] / sums[..., 1]),
        measure="1 - relative MAE",
        more=lambda sums: {"mean absolute error": float(sums[0] / sums[2])},
    ),
)
