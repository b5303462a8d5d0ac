"""Labels that are no class numbers: masks beside images, strings, numbers. Loaded one image at a time.

A mask is of the size of its image and is resized and cut as its image is, by nearest neighbour alone: a mean of two
class numbers is a third class.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import InputError, nearest
from deploy_kit.base.lazy import need
from deploy_kit.images.arrays import read_npy
from deploy_kit.images.files import FORMATS, files_below
from deploy_kit.images.sets import ImageSet, Truth, TruthKind
from deploy_kit.images.tensors import nearest_sized
from deploy_kit.records.artifacts import Preprocess

MASK_SUFFIXES = frozenset({".png", ".bmp", ".gif", ".tif", ".tiff", ".npy"})
_MODES = frozenset({"1", "L", "P", "I", "I;16"})  # one number a pixel
ARRAYS: dict[str, tuple[TruthKind, str, tuple[int, ...], str]] = {
    "masks": ("masks", "whole numbers (n, H, W)", (3,), "iub"),
    "texts": ("texts", "texts (n,)", (1,), "U"),
    "targets": ("numbers", "numbers (n,) or (n, D)", (1, 2), "iuf"),
}
"""Arrays of an npz file: what each holds, in words, its ranks and the kinds of its dtype."""
_SAVE = "save each mask as a PNG of class numbers: mode P (palette) or L, one number a pixel"


def with_masks(images: ImageSet, folder: Path) -> ImageSet:
    """Put masks beside images: files of the same relative path below `folder`, whatever their ending.

    Class folders are no labels then.

    Raises:
        InputError: An image has no mask or two, or a mask cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of masks, found none", hint="give it: --masks FOLDER")
    if not images.files:
        raise InputError(
            f"{images.name}: masks in a folder belong to images in a folder",
            hint="put an array 'masks' (n, H, W) into the npz file, and leave --masks out",
        )
    found = dict[str, Path]()
    for file in files_below(folder, MASK_SUFFIXES):
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise InputError(f"{file}: the mask of '{stem}' is there twice, also as {found[stem].name}")
        found[stem] = file
    stems = [Path(name).with_suffix("").as_posix() for name in images.files]
    absent = [name for name, stem in zip(images.files, stems, strict=True) if stem not in found]
    if absent:
        raise InputError(
            f"{folder}: {len(absent)} of {images.n} images have no mask, the first is {absent[0]}",
            hint=nearest(Path(absent[0]).stem, list(found)) or "a mask has the name of its image: a/b.jpg, a/b.png",
        )
    paths = tuple(found[stem] for stem in stems)
    endless = next((path for path in paths if not path.is_file()), None)
    if endless is not None:  # a pipe or a device
        raise InputError(f"{endless}: is no regular file", hint=_SAVE)
    truth = Truth(
        kind="masks",
        names=tuple(path.as_posix() for path in paths),
        hashes=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths),
        load=lambda index: read_mask(paths[index]),
    )
    return replace(images, labels=None, classes=(), truth=truth)


def read_mask(file: Path) -> np.ndarray:
    """Read class numbers (H, W) int32 from an image of one number a pixel (a palette's indices), or an npy file.

    Raises:
        InputError: It is no such file, or it holds colors.
    """
    if file.suffix.lower() == ".npy":
        mask = read_npy(file)
        if mask.ndim != 2 or mask.dtype.kind not in "iub":
            raise InputError(f"{file}: expected whole numbers (H, W), found {mask.dtype} {mask.shape}", hint=_SAVE)
        return _class_numbers(mask, str(file))
    need("PIL", by="reading masks")
    from PIL import Image

    Image.init()
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.mode not in _MODES:
                raise InputError(f"{file}: expected class numbers, found colors ({opened.mode})", hint=_SAVE)
            return np.asarray(opened).astype(np.int32)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable mask: {error}", hint=_SAVE) from error


def of_arrays(path: Path, arrays: dict[str, np.ndarray], n: int) -> Truth | None:
    """Return the labels that an npz file holds beside its images: ``masks``, ``texts`` or ``targets``; None without.

    Raises:
        InputError: Several of them, or one of another kind or number.
    """
    there = [name for name in ARRAYS if name in arrays]
    if not there:
        return None
    if len(there) > 1 or "labels" in arrays:
        both = (*there, *({"labels"} & set(arrays)))
        raise InputError(f"{path}: expected one kind of labels, found {', '.join(both)}")
    kind, wanted, ranks, types = ARRAYS[there[0]]
    values = arrays[there[0]]
    if len(values) != n or values.ndim not in ranks or values.dtype.kind not in types:
        raise InputError(f"{path}: {there[0]}: expected {wanted} of {n} images, found {values.dtype} {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: {there[0]}: expected finite numbers")
    hashes = tuple(hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for value in values)
    names = tuple(f"{path}: {there[0]}[{index}]" for index in range(n))
    load: Callable[[int], Any] = lambda index: _class_numbers(values[index], names[index])  # noqa: E731
    if kind == "texts":
        load = lambda index: str(values[index])  # noqa: E731
    elif kind == "numbers":
        load = lambda index: np.atleast_1d(values[index]).astype(np.float64)  # noqa: E731
    return Truth(kind=kind, names=names, hashes=hashes, load=load)


def _class_numbers(mask: np.ndarray, where: str) -> np.ndarray:
    """Return a mask as int32; a number that would become another one is refused."""
    numbers = mask.astype(np.int32)
    if not np.array_equal(numbers, mask):
        raise InputError(f"{where}: {mask[numbers != mask][0]} is no class number", hint=_SAVE)
    return numbers


def mask_of(
    images: ImageSet,
    index: int,
    preprocess: Preprocess,
    sides: tuple[int, ...],
    *,
    n_classes: int,
    ignore_index: int | None,
) -> np.ndarray:
    """Return the mask of one image as the output sees it: resized and cut as the image is, nearest neighbour.

    Args:
        images: Set with masks.
        index: Which image.
        preprocess: How its image becomes the input.
        sides: (H, W) of the output; where these are not the input's, the mask is sampled at the centers of its pixels.
        n_classes: Number of the output's classes.
        ignore_index: Number that is no class and is not judged.

    Raises:
        InputError: The mask is of another size than its image, or has a number that is no class.
    """
    assert images.truth is not None
    mask, name = images.truth.load(index), images.truth.names[index]
    shape = images.load(index).shape[:2]
    if mask.shape != shape:
        raise InputError(
            f"{name}: expected a mask of its image's size {shape[1]}×{shape[0]}, found {mask.shape[1]}×{mask.shape[0]}",
            hint="give masks of the size of the images: they are resized and cut together",
        )
    odd = sorted(set(np.unique(mask).tolist()) - set(range(n_classes)) - {ignore_index})
    if odd:
        hint = f"where {odd[-1]} marks pixels that are not judged: --ignore-index {odd[-1]}"
        raise InputError(
            f"{name}: class {odd[-1]}, and the output has {n_classes} classes, 0 to {n_classes - 1}",
            hint=hint if len(odd) == 1 else "give class numbers of this checkpoint: 0 is its first class",
        )
    sized = nearest_sized(mask, preprocess)
    if sized.shape == sides:
        return sized
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(int) for n, of in zip(sides, sized.shape, strict=True))
    return np.asarray(sized[np.ix_(rows, columns)])
