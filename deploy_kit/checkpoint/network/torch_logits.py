"""A checkpoint's own logits, computed by torch on preprocessed images."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.images import Crops, ImageSet, mean_of_crops
from deploy_kit.records.artifacts import BareInput, Preprocess

# Feature maps of more leave the caches: DenseNet-121 at 224×224 px takes 95 ms of one core for an image at batch 4 and
# 120 ms at 16 (AMD EPYC, torch 2.13). A power of two, so that parts of a set hold whole batches.
_BATCH, _BATCH_VALUES = 16, 4 * 3 * 224 * 224


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
    done, taken = 0, preprocess.normalized
    fitting = max(1, _BATCH_VALUES // math.prod(taken.shape))
    size = min(_BATCH, 1 << (fitting.bit_length() - 1))
    for batch in image_set.batches(taken, max(1, size // crops), crops):
        outputs = network(torch.from_numpy(batch))
        yield mean_of_crops((torch.cat(outputs, 1) if isinstance(outputs, tuple) else outputs).numpy(), crops)
        done += len(batch) // crops
        on_batch(done)
