"""A checkpoint's own logits, computed by torch on preprocessed images."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.images import Crops, ImageSet, mean_of_crops
from deploy_kit.records.artifacts import BareInput, Preprocess

_BATCH = 16


def torch_logits(
    network: DenseNet,
    image_set: ImageSet,
    preprocess: Preprocess | BareInput,
    *,
    crops: Crops = 1,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Iterator[np.ndarray]:
    """Compute the logits of an image set, a batch at a time.

    Args:
        network: The network in eval mode.
        image_set: Images in order.
        preprocess: How an image becomes the input; the network takes it normalized, whatever a graph of it takes.
        crops: Crops of each image, whose logits are averaged.
        on_batch: Called with the number of images that are done.

    Returns:
        (n, classes) float32, batch by batch; the logits of several heads stand side by side.
    """
    done = 0
    for batch in image_set.batches(preprocess.normalized, max(1, _BATCH // crops), crops):
        outputs = network(torch.from_numpy(batch))
        yield mean_of_crops((torch.cat(outputs, 1) if isinstance(outputs, tuple) else outputs).numpy(), crops)
        done += len(batch) // crops
        on_batch(done)
