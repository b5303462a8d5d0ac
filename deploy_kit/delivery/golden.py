"""Golden images: a few real ones of the network's size, and what the engine answers to them."""

import io
from pathlib import Path

import numpy as np

from deploy_kit.accuracy import consistency
from deploy_kit.base.errors import InputError
from deploy_kit.delivery.manifest import GoldenRecord
from deploy_kit.images import ImageSet, to_pixels
from deploy_kit.images.arrays import read_arrays
from deploy_kit.records.artifacts import Precision, Preprocess

FILE = "golden.npz"
N = 8
MAX_N = 256
# What an engine may differ by from itself; kernels of another machine add in another order, as another batch does.
TOLERANCE = consistency.ALLOWED


def chosen(image_set: ImageSet, logits: np.ndarray | None, n: int = N) -> list[int]:
    """Choose the images of a set to pack: of as many predicted classes as there are, the surest of each first.

    Another machine rounds otherwise, and must not answer otherwise because an image lay on the border of two classes.

    Args:
        image_set: The set.
        logits: (n, K) outputs of the checkpoint on it; None where they are not known, and the first images are taken.
        n: Number of images.
    """
    n = min(n, image_set.n)
    if logits is None or len(logits) != image_set.n:
        return list(range(n))
    ranked = np.sort(logits.astype(np.float64), axis=1)
    margins = ranked[:, -1] - ranked[:, -2] if logits.shape[1] > 1 else np.abs(ranked[:, -1])
    best = [int(index) for index in np.argsort(-margins, kind="stable")]
    predicted = logits.argmax(axis=1)
    rounds: dict[int, int] = {}
    places = []
    for index in best:  # the surest of each class, then the second of each, …
        place = rounds[int(predicted[index])] = rounds.get(int(predicted[index]), -1) + 1
        places.append((place, index))
    order = {index: rank for rank, index in enumerate(best)}
    return [index for _, index in sorted(places, key=lambda pair: (pair[0], order[pair[1]]))[:n]]


def pixels_of(image_set: ImageSet, indices: list[int], preprocess: Preprocess) -> np.ndarray:
    """Return images resized and cut, as the network sees them: uint8 (n, H, W), or (n, H, W, 3) in RGB order."""
    return np.stack([to_pixels(image_set.load(index), preprocess) for index in indices])


def packed(images: np.ndarray, logits: np.ndarray) -> bytes:
    """Write images and logits as npz; equal arrays give equal bytes, since numpy dates its members to 1980."""
    buffer = io.BytesIO()
    np.savez(buffer, images=images, logits=logits)
    return buffer.getvalue()


def read_golden(
    path: Path, record: GoldenRecord, preprocess: Preprocess, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the golden images and logits of a bundle.

    Raises:
        InputError: Not the arrays that the manifest speaks of.
    """
    if record.n > MAX_N:
        raise InputError(f"{path}: expected at most {MAX_N} golden images, found {record.n}")
    arrays = read_arrays(path, ("images", "logits"))
    channels = () if preprocess.channels == 1 else (3,)
    expected = {
        "images": ((record.n, preprocess.height, preprocess.width, *channels), np.dtype(np.uint8)),
        "logits": ((record.n, n_classes), np.dtype(np.float32)),
    }
    for name, (shape, dtype) in expected.items():
        if name not in arrays or (arrays[name].shape, arrays[name].dtype) != (shape, dtype):
            found = f"{arrays[name].dtype} {arrays[name].shape}" if name in arrays else "none"
            raise InputError(f"{path}: '{name}': expected {dtype} {shape}, found {found}")
    if not np.isfinite(arrays["logits"]).all() or not arrays["logits"].any():
        raise InputError(f"{path}: expected finite logits that are not all zero")
    return arrays["images"], arrays["logits"]


def tolerance_of(precision: Precision) -> float:
    """Return the largest difference that counts as the same answer, relative to the largest absolute logit."""
    return TOLERANCE[precision]


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest absolute difference, relative to the largest absolute logit of `wanted`; NaN where one is."""
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
