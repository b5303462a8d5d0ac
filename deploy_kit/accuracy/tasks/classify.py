"""One class an image: a row of K logits or probabilities, scored by top-1 (`accuracy.scores.classification`)."""

from deploy_kit.accuracy.tasks import Task

TASK = Task(takes="N×K", fits=lambda shape: len(shape) == 1, inferred=True, scoring=None)
