"""A vector that is compared with others by its direction: N×D, e.g. pooled features for retrieval.

An engine's vectors are looked up among the checkpoint's, as in an index that exists: an image's nearest neighbour by
cosine, itself left out. Scored with class labels by recall at 1: the neighbour is of the image's own class.
"""

import numpy as np

from deploy_kit.accuracy.tasks import Scoring, Task, TaskSettings


def nearest_neighbour(output: np.ndarray, index: int, settings: TaskSettings) -> int:
    """Return the index of the nearest other image among the checkpoint's vectors; -1 where there is none."""
    assert settings.gallery is not None
    if len(settings.gallery) < 2 or not np.isfinite(output).all():
        return -1
    vectors = settings.gallery.astype(np.float64)
    alike = vectors @ output.astype(np.float64) / np.maximum(np.linalg.norm(vectors, axis=1), 1e-300)
    alike[index] = -np.inf
    return int(alike.argmax())


TASK = Task(
    takes="N×D",
    fits=lambda shape: len(shape) == 1,
    inferred=False,
    scoring=Scoring(
        answer=nearest_neighbour,
        agreement_name="nearest neighbour kept",
        labels="classes",
        counts=lambda found, same_class, settings: np.array([float(same_class(found)), 1.0]),
        score=lambda sums: np.asarray(sums[..., 0] / sums[..., 1]),
        measure="recall at 1",
    ),
)
