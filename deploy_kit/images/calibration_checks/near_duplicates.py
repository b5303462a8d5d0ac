"""Images that look the same though their bytes differ: saved again, resized, a little brighter."""

import numpy as np

from deploy_kit.images import ImageSet
from deploy_kit.images.calibration_checks.pixels import gray_of, over

COMPARED = 2048
"""Largest number of images of each set that are compared."""
_SIDE, _BITS, _ALIKE = 16, 12, 0.996
# Of 5,120,000 pairs of Fashion-MNIST (512 training, 10,000 test images) none passes: the closest correlates by 0.9947.
# Of the 512 saved as JPEG of quality 75, 98 % are found; of quality 50, 94 %; of those resized to 64×64 px, 99.8 %.


def pairs(ours: ImageSet, theirs: ImageSet) -> np.ndarray:
    """Find pairs that look alike: few bits of the hashes differ, and the shapes correlate.

    Either alone raises false alarms: the bits on images of little detail, the shapes on images with one bright outline.

    Returns:
        (n, 2) indices of each pair among the images that are compared.

    Raises:
        InputError: An image cannot be read.
    """
    (bits, shapes), (others, other_shapes) = _prints(ours), _prints(theirs)
    differing = (64 - bits @ others.T) / 2
    return np.argwhere((differing <= _BITS) & (shapes @ other_shapes.T >= _ALIKE))


def fingerprint(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute what stays when an image is saved again: 64 bits of its gradients, and its shape in 16×16 gray values.

    The bits are a difference hash (dHash): whether each of 8×8 gray areas is darker than its right neighbor.

    Returns:
        (64,) bool; (256,) float64 with mean 0 and length 1, or all 0 where the image is of one value.
    """
    gray = gray_of(pixels)
    areas = _shrunk(gray, 8, 9)
    shape = _shrunk(gray, _SIDE, _SIDE).ravel()
    shape = shape - shape.mean()
    length = float(np.linalg.norm(shape))
    return (areas[:, 1:] > areas[:, :-1]).ravel(), shape / length if length > 1e-6 else np.zeros_like(shape)


def _prints(image_set: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits as (n, 64) of -1 and 1, and the shapes as (n, 256), of the images that are compared."""
    bits, shapes = zip(*over(image_set, COMPARED, fingerprint), strict=True)
    return np.where(np.stack(bits), np.float32(1), np.float32(-1)), np.stack(shapes).astype(np.float32)


def _shrunk(gray: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average over `height` × `width` areas of equal size; a pixel across a border counts in proportion."""
    return _means(_means(gray, height).T, width).T


def _means(rows: np.ndarray, n: int) -> np.ndarray:
    """Average rows over `n` equal parts of their number, from their sums up to each border."""
    # Sums, not a matrix product: BLAS's threads beside those that decode took 8 ms of processor time instead of 0.3.
    edges = np.arange(n + 1) * len(rows) / n
    whole = np.minimum(edges.astype(int), len(rows) - 1)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    return np.asarray(np.diff(sums[whole] + (edges - whole)[:, None] * rows[whole], axis=0) * n / len(rows))
