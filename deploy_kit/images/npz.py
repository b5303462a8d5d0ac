"""Images in an npz file: arrays ``images`` and, if labelled, ``labels``; held against the manifest beside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.base.text_files import read_json
from deploy_kit.images import truth
from deploy_kit.images.arrays import read_arrays
from deploy_kit.images.sets import ImageSet, of_pixels


def open_npz(name: str, path: Path) -> ImageSet:
    """Open an npz file.

    Raises:
        InputError: Not an npz, not whole, arrays of the wrong kind, or not what its manifest says.
    """
    arrays = read_arrays(path, ("images", "labels", *truth.ARRAYS))
    pixels, labels = arrays.get("images"), arrays.get("labels")
    if pixels is None:
        raise InputError(f"{path}: expected an array 'images', found none")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
        raise InputError(
            f"{path}: expected uint8 images (n, H, W) or (n, H, W, 3), found {pixels.dtype} {pixels.shape}",
            hint="store the pixels as they are, 0..255: the preprocessing is applied when they are read",
        )
    if 0 in pixels.shape[1:]:
        raise InputError(f"{path}: expected images of at least 1×1 px, found {pixels.dtype} {pixels.shape}")
    found = of_pixels(name, pixels, None if labels is None else _labels(path, labels, len(pixels)))
    found = replace(found, truth=truth.of_arrays(path, arrays, len(pixels)))
    _verify_manifest(path, found)
    return found


def read_logits(path: Path) -> np.ndarray:
    """Read the array ``logits`` (n, classes) float32 of an npz file.

    Raises:
        InputError: Not an npz, not whole, no such array, or of another kind; or a logit is no finite number.
    """
    found = read_arrays(path, ("logits",)).get("logits")
    if found is None:
        raise InputError(f"{path}: expected an array 'logits', found none")
    if found.ndim != 2 or found.dtype != np.float32 or not len(found):
        raise InputError(f"{path}: logits: expected float32 (n, classes), found {found.dtype} {found.shape}")
    if not np.isfinite(found).all() or not found.any():
        raise InputError(f"{path}: logits: expected finite numbers that are not all 0")
    return found


def _labels(path: Path, labels: np.ndarray, n: int) -> np.ndarray:
    """Return labels of one class an image as (n,) int64, of several as (n, K) uint8."""
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(f"{path}: expected {n} labels, found {labels.shape}")
    if labels.ndim == 1:
        if labels.dtype.kind not in "iu":
            raise InputError(f"{path}: expected labels as whole numbers, found {labels.dtype}")
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iub" or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"{path}: expected labels (n, K) of 0 and 1, found {labels.dtype} {labels.shape} with other values",
            hint="one column a class; or (n,) whole numbers where each image is of one class",
        )
    return labels.astype(np.uint8)


def _verify_manifest(path: Path, found: ImageSet) -> None:
    manifest = path.with_suffix(".json")
    if not manifest.is_file():
        return
    try:
        promised = read_json(manifest)["sha256"]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{manifest}: not a manifest: expected JSON with 'sha256'") from error
    if not isinstance(promised, list):
        raise InputError(f"{manifest}: not a manifest: expected 'sha256' to be a list, one of each image")
    if len(promised) != found.n:
        raise InputError(f"{path}: its manifest promises {len(promised)} images, found {found.n}")
    for index, (a, b) in enumerate(zip(promised, found.hashes, strict=True)):
        if a != b:
            raise InputError(f"{path}: image {index} is not the one its manifest names")
