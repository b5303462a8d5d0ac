"""Tests of torch_logits.py: how many images a batch holds."""

import numpy as np
import pytest
import torch
from tiny_densenet import TINY_PREPROCESS, tiny_model

from deploy_kit.checkpoint.network.torch_logits import torch_logits
from deploy_kit.images.sets import of_pixels
from deploy_kit.records.artifacts import BareInput


def batch_sizes(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> list[int]:
    """Give the sizes of the batches of 18 tensors of a shape."""
    sizes, network = list[int](), tiny_model()
    monkeypatch.setattr(network, "forward", lambda x: sizes.append(len(x)) or torch.zeros(len(x), 4))
    tensors = np.broadcast_to(np.zeros((), np.float32), (18, *shape))

    list(torch_logits(network, of_pixels("zeros", tensors, None), BareInput(shape=shape)))

    return sizes


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((1, 28, 28), [16, 2]), ((3, 112, 112), [16, 2]), ((3, 224, 224), [4, 4, 4, 4, 2]), ((3, 600, 600), [1] * 18)],
)
def test_a_batch_of_large_images_is_small(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], wanted: list[int]
) -> None:
    assert batch_sizes(monkeypatch, shape) == wanted


def test_the_size_of_a_batch_changes_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0).integers(0, 256, (5, 16, 16), np.uint8)
    images = of_pixels("noise", draws, None)
    at_once = np.concatenate(list(torch_logits(tiny_model(), images, TINY_PREPROCESS)))

    monkeypatch.setattr("deploy_kit.checkpoint.network.torch_logits._BATCH_VALUES", 1)
    one_by_one = list(torch_logits(tiny_model(), images, TINY_PREPROCESS))

    assert len(one_by_one) == 5
    np.testing.assert_allclose(np.concatenate(one_by_one), at_once, rtol=1e-5, atol=1e-6)
