"""Scores of checkpoint and engine on labelled images, from the outputs (n, K) of both on the same images.

classification   one label per image: top-k, recall by class, permuted labels
auroc            several labels per image: area under the ROC curve by class
confidence       kind of the outputs, probabilities, calibration error
flips            images whose predicted class changed
"""

from collections.abc import Callable

import numpy as np

from deploy_kit.accuracy.scores import auroc, classification, confidence
from deploy_kit.records.parity import Scores


def score_outputs(
    reference: np.ndarray, candidate: np.ndarray, truth: np.ndarray, class_name: Callable[[int], str] = lambda _: ""
) -> Scores:
    """Score the outputs of checkpoint and engine on labelled images.

    Args:
        reference: (n, K) outputs of the checkpoint.
        candidate: (n, K) outputs of the engine.
        truth: (n,) labels; (n, K) of 0 and 1 where an image has several labels.
        class_name: Index of a class → its name in the image set; empty where it has none.
    """
    several = truth.ndim == 2
    table = (auroc.auroc_table if several else classification.recall_table)(reference, candidate, truth, class_name)
    kind = confidence.output_kind(reference)
    top5 = (
        None
        if several or reference.shape[1] <= 5
        else tuple(classification.top_k(v, truth, 5) for v in (reference, candidate))
    )
    return Scores(
        outputs=kind,
        measure="AUROC" if several else "recall",
        classes=table,
        top5_reference=top5[0] if top5 else None,
        top5=top5[1] if top5 else None,
        ece_reference=confidence.expected_calibration_error(reference, kind, truth),
        ece=confidence.expected_calibration_error(candidate, kind, truth),
        mean_reference=_mean([entry.reference for entry in table]),
        mean=_mean([entry.found for entry in table]),
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
