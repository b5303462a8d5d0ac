"""Images in an npz file: arrays ``images`` and, if labelled, ``labels``; held against the manifest beside it."""

import json
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.images.sets import ImageSet, of_pixels


def open_npz(name: str, path: Path) -> ImageSet:
    """Open an npz file.

    Raises:
        InputError: Not an npz, not whole, arrays of the wrong kind, or not what its manifest says.
    """
    arrays = _arrays(path)
    pixels, labels = arrays.get("images"), arrays.get("labels")
    if pixels is None:
        raise InputError(f"{path}: expected an array 'images', found none")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
        raise InputError(
            f"{path}: expected uint8 images (n, H, W) or (n, H, W, 3), found {pixels.dtype} {pixels.shape}",
            hint="store the pixels as they are, 0..255: the preprocessing is applied when they are read",
        )
    found = of_pixels(name, pixels, None if labels is None else _labels(path, labels, len(pixels)))
    _verify_manifest(path, found)
    return found


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start and not start.startswith((b"PK", b"\x93NUMPY")):
                raise InputError(f"{path}: expected a folder of images, a CSV manifest or an npz file")
            data = np.load(file, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an npz file with an array 'images', found one bare array")
            return {key: data[key] for key in data.files if key in ("images", "labels")}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: not a whole npz file: {error}", hint="it may be cut off: get it again") from error
    # What numpy raises on a header that is damaged, beside ValueError.
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{path}: not a readable npz file: {error}") from error


def _labels(path: Path, labels: np.ndarray, n: int) -> np.ndarray:
    """Give labels of one class an image as (n,) int64, of several as (n, K) uint8."""
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
        promised = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest}: not a manifest: expected JSON with 'sha256'") from error
    if not isinstance(promised, list):
        raise InputError(f"{manifest}: not a manifest: expected 'sha256' to be a list, one of each image")
    if len(promised) != found.n:
        raise InputError(f"{path}: its manifest promises {len(promised)} images, found {found.n}")
    for index, (a, b) in enumerate(zip(promised, found.hashes, strict=True)):
        if a != b:
            raise InputError(f"{path}: image {index} is not the one its manifest names")
