"""Telling random noise from images: neighboring pixels of an image correlate."""

import numpy as np

from deploy_kit.images.calibration_checks.pixels import gray_of

_LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_WINDOW = 256
"""Side in px of the center of an image that is examined."""
_CHI2 = 22.46
"""99.9 % point of chi² with six degrees of freedom."""
_WEAK = 0.1
"""Correlation that counts as none; JPEG adds up to 0.06 to noise (quality 50, 224×224 px)."""
_ENOUGH = 400
"""Pairs of pixels with which four standard errors of a correlation are 0.2: photographs have more."""


def correlations(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlate an image with itself, shifted by six small offsets.

        r = Σ (x - m)(x' - m) / (n_pairs · variance)

    Of independent pixels r · √n_pairs is a standard normal number, so Σ n_pairs · r² is chi² with six degrees of
    freedom (Box and Pierce, JASA 65, 1970, here in two dimensions).

    Args:
        pixels: uint8 (H, W) or (H, W, 3); of a large image the center counts.

    Returns:
        (6,) correlations and (6,) numbers of pairs; 0 where the image is too small, or of one value.
    """
    top, left = (max(0, (side - _WINDOW) // 2) for side in pixels.shape[:2])
    part = gray_of(pixels[top : top + _WINDOW, left : left + _WINDOW])
    part -= part.mean()
    variance = float(np.square(part).mean())
    r, pairs = np.zeros(len(_LAGS)), np.zeros(len(_LAGS))
    for i, (down, right) in enumerate(_LAGS):
        height, width = part.shape[0] - down, part.shape[1] - abs(right)
        if height < 1 or width < 1 or variance == 0:
            continue
        a = part[:height, max(0, -right) :][:, :width]
        b = part[down:, max(0, right) :][:, :width]
        r[i], pairs[i] = float((a * b).mean()) / variance, a.size
    return r, pairs


def silent(r: np.ndarray, pairs: np.ndarray) -> bool:
    """Return whether the correlations of one image could be those of noise, or are negligible."""
    if not pairs.any():
        return False
    return bool((pairs * r**2).sum() <= _CHI2 or np.abs(r).max() <= _WEAK)


def together(r: np.ndarray, pairs: np.ndarray) -> float | None:
    """Return the largest correlation of several images taken together, if it is negligible; else None.

    In one image of 5×5 px a real correlation can be missed; in a hundred of them it is not. None also where all of them
    have too few pixels to tell.

    Args:
        r: (n, 6) correlations of each image.
        pairs: (n, 6) numbers of pairs of each image.
    """
    mean, n_pairs = np.abs(r.mean(axis=0)), pairs.sum(axis=0)
    if n_pairs.max() < _ENOUGH:
        return None
    within = mean <= _WEAK + 4 / np.sqrt(np.maximum(n_pairs, 1))
    return float(mean.max()) if within.all() else None
