"""What makes a check set doubtful by itself: labels that are not the network's, images that are copies of others."""

from dataclasses import dataclass

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.images.sets import ImageSet

_DOUBTFUL, _REMARKABLE = 0.05, 0.01  # shares of copies


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Images of a set that are copies of others in it: their decoded pixels are the same, whatever their files are.

    Attributes:
        n: Number of images beyond the first of each.
        of: Number of images.
    """

    n: int
    of: int

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why no interval over these images holds, in at most one sentence: it takes each for another image."""
        if self.n < _DOUBTFUL * self.of:
            return ()
        return (f"{self.words}: {self.of - self.n:,} images tell no more however often they are repeated",)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know of a few of them, in at most one sentence."""
        return (self.words,) if _REMARKABLE * self.of <= self.n < _DOUBTFUL * self.of else ()

    @property
    def words(self) -> str:
        """How many there are, in one sentence."""
        return f"{self.n:,} of {self.of:,} images are copies of others, pixel for pixel"


def copies(images: ImageSet) -> Copies:
    """Count the images of a set that are copies of others, by their decoded pixels.

    Raises:
        InputError: An image cannot be read.
    """
    return Copies(n=images.n - len(set(images.pixel_hashes())), of=images.n)


def verify_labels(images: ImageSet, classes: int) -> None:
    """Refuse labels that are not of a network: out of range, or of classes whose numbers nobody can know.

    Args:
        images: Images, with labels or without.
        classes: Number of the network's classes.

    Raises:
        InputError: They are not; the message names the first such image.
    """
    if images.labels is None:
        return
    named = images.labels.shape[1] if images.multilabel else len(images.classes)
    if (named or images.multilabel) and named != classes:
        raise InputError(
            f"{images.name}: labels of {named} classes, and the checkpoint has {classes}",
            hint="name all of the checkpoint's classes in its order, one a line, in classes.txt beside the images",
        )
    outside = np.flatnonzero((images.labels < 0) | (images.labels >= classes))
    if len(outside) and not images.multilabel:
        first = int(outside[0])
        if images.labels.min() == 1 and images.labels.max() == classes:
            raise InputError(
                f"{images.name}: labels run from 1 to {classes}, and the checkpoint's {classes} classes are numbered "
                f"from 0 to {classes - 1}",
                hint="subtract 1 from every label, so that the first class is 0",
            )
        raise InputError(
            f"{images.name}: {images.name_of(first)}: label {images.labels[first]}, and the checkpoint has "
            f"{classes} classes (and {len(outside) - 1} more such images)",
            hint="give the images of this checkpoint's classes, numbered from 0",
        )
