"""What the checks share: the sample of a set that is examined, and gray values of color images."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

import numpy as np

from deploy_kit.images import ImageSet
from deploy_kit.images.ordered import in_order

T = TypeVar("T")


def spread(n: int, most: int) -> tuple[int, ...]:
    """Return `most` indices below `n`, evenly spread; all where there are fewer."""
    return tuple(int(place) for place in np.unique(np.linspace(0, n - 1, min(n, most)).round()))


def over(image_set: ImageSet, most: int, look: Callable[[np.ndarray], T]) -> Iterator[T]:
    """Apply `look` to the pixels of `most` images of a set, evenly spread, in their order.

    Raises:
        InputError: One of them cannot be read.
    """
    places = spread(image_set.n, most)
    with closing(in_order(lambda i: look(image_set.load(places[i])), len(places))) as looks:
        yield from looks


def gray_of(pixels: np.ndarray) -> np.ndarray:
    """Compute the mean of the channels as (H, W) float64."""
    if pixels.ndim == 2:
        return pixels.astype(np.float64)
    # Channel by channel: ten times as fast as numpy's mean over a last axis of three.
    return np.asarray((pixels[..., 0].astype(np.float64) + pixels[..., 1] + pixels[..., 2]) / 3)
