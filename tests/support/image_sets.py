"""What the tests of image sets share: small images, files made of them, sets opened and refused."""

import numpy as np
import pytest
from PIL import Image

from deploy_kit import images
from deploy_kit.base.errors import InputError
from deploy_kit.records.artifacts import Preprocess

GRAY = Preprocess(height=4, width=6, color="gray", mean=(0.5,), std=(0.25,))
RGB = Preprocess(height=4, width=6, color="rgb", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))


@pytest.fixture
def gray():
    """One gray image of 4 × 6 px."""
    return np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)


@pytest.fixture
def color():
    """One RGB image of 4 × 6 px."""
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def npz(folder, **arrays):
    """Save arrays and give the path."""
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def pixels(n, *shape):
    return np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8)


def opened(path, preprocess=GRAY):
    return images.open_set(str(path), preprocess)


def refused(path, preprocess=GRAY):
    """Give the error of opening an image set."""
    with pytest.raises(InputError) as caught:
        images.open_set(str(path), preprocess)
    return caught.value


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
