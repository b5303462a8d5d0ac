"""Several classes an image: a row of K logits or probabilities, scored by mean AUROC (`accuracy.scores.auroc`)."""

from deploy_kit.accuracy.tasks import Task

TASK = Task(takes="N×K", fits=lambda shape: len(shape) == 1, inferred=False, scoring=None)
