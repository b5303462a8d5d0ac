"""Images from npz files and folders → preprocessed (N, C, H, W) float32 batches, streamed.

Does not hold a preprocessed set in memory, and never calls random numbers images: seeded noise has its own name.
"""

import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_kit import bundled
from deploy_kit.errors import InputError
from deploy_kit.lazy import need
from deploy_kit.records import BareInput, Preprocess

SYNTHETIC = "synthetic"
_SYNTHETIC_N, _NOISE_N = 32, 8
_UNKNOWN = "export the checkpoint again with --input, --mean and --std, or leave --images and --calibration out"
_EIGHT_BITS = "convert the images to 8 bits as they were in training"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"})


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A set of images in a fixed order.

    Attributes:
        name: As the recipe names it.
        n: Number of images.
        labels: (n,) int64, or None.
        hashes: sha256 of each image: of its pixels in an npz, of its file in a folder.
        load: Index → pixels, uint8 (H, W) or (H, W, 3) in RGB order; for a bare input its tensor.
    """

    name: str
    n: int
    labels: np.ndarray | None
    hashes: tuple[str, ...]
    load: Callable[[int], np.ndarray]

    @property
    def digest(self) -> str:
        """Hash of the whole set: images, order and labels."""
        labels = b"" if self.labels is None else np.asarray(self.labels, np.int64).tobytes()
        return hashlib.sha256("".join(self.hashes).encode() + labels).hexdigest()

    def first(self, n: int) -> "ImageSet":
        """Take the first `n` images, or all where there are fewer."""
        n = min(n, self.n)
        labels = None if self.labels is None else self.labels[:n]
        return ImageSet(name=self.name, n=n, labels=labels, hashes=self.hashes[:n], load=self.load)

    def batches(self, preprocess: Preprocess | BareInput, size: int) -> Iterator[np.ndarray]:
        """Give the preprocessed images in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, self.n, size):
            stop = min(start + size, self.n)
            yield np.stack([self._tensor(index, preprocess) for index in range(start, stop)])

    def overlap(self, other: "ImageSet") -> int:
        """Count the images that are in both sets, by sha256."""
        return len(set(self.hashes) & set(other.hashes))

    def _tensor(self, index: int, preprocess: Preprocess | BareInput) -> np.ndarray:
        if isinstance(preprocess, BareInput):
            return self.load(index)
        try:
            return apply(self.load(index), preprocess)
        except InputError as error:
            raise InputError(f"{self.name}: image {index}: {error}", hint=error.hint) from error


def apply(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn one image into an input tensor.

        x = (pixel / 255 - mean) / std

    Args:
        pixels: uint8 (H, W) or (H, W, 3) in RGB order.
        preprocess: What to do.

    Returns:
        (C, height, width) float32.

    Raises:
        InputError: The image has the wrong size and the preprocessing does not resize, or the wrong channels.
    """
    height, width = preprocess.height, preprocess.width
    if preprocess.resize is not None:
        pixels = _resized(pixels, preprocess)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[0]}×{pixels.shape[1]}"
        raise InputError(
            f"expected {height}×{width} px, found {found}",
            hint="give images of the model's size, or set 'resize' in the recipe's preprocess",
        )
    if pixels.ndim == 2:
        planes = np.repeat(pixels[None], preprocess.channels, axis=0)
    elif preprocess.color == "gray":
        raise InputError("expected a gray image, found 3 channels", hint="convert the images to gray first")
    else:
        planes = pixels.transpose(2, 0, 1)
        planes = planes[::-1] if preprocess.color == "bgr" else planes
    mean = np.asarray(preprocess.mean, np.float32)[:, None, None]
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    return (planes.astype(np.float32) / np.float32(255) - mean) / std


def _resized(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Scale the shorter side to `resize` px (antialiased, Pillow's filter) and cut the center out."""
    need("PIL", by="resizing images")
    from PIL import Image

    image = Image.fromarray(pixels)
    assert preprocess.resize is not None
    # Lengths and offsets are rounded as torchvision's Resize and CenterCrop round them: one px decides parity.
    short = min(image.size)
    size = (preprocess.resize * image.width // short, preprocess.resize * image.height // short)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    if size[0] < preprocess.width or size[1] < preprocess.height:
        raise InputError(
            f"resized to {size[1]}×{size[0]} px, less than the {preprocess.height}×{preprocess.width} px to cut out",
            hint="raise 'resize' in the preprocess",
        )
    image = image.resize(size, filters[preprocess.interpolation])
    left, top = round((image.width - preprocess.width) / 2), round((image.height - preprocess.height) / 2)
    return np.asarray(image.crop((left, top, left + preprocess.width, top + preprocess.height)))


def open_set(source: str, preprocess: Preprocess | BareInput) -> ImageSet:
    """Open an image set.

    Args:
        source: ``bundled:NAME``, an npz file (``images`` uint8, optional ``labels``), a folder of images (one
            sub-folder a class gives labels), or ``synthetic`` for seeded noise of the input's size.
        preprocess: Gives the size of synthetic images; others are read as they are.

    Raises:
        InputError: Missing, empty, of the wrong kind, or not what its manifest says; or images for a bare input.
    """
    if isinstance(preprocess, BareInput):
        if source != SYNTHETIC:
            raise InputError(f"{source}: how images become the input of this model is not known", hint=_UNKNOWN)
        return _noise(preprocess)
    if source == SYNTHETIC:
        return _synthetic(preprocess)
    path = bundled.resolve("calibration", source)
    if path.is_dir():
        found = _open_folder(source, path)
    elif path.is_file():
        found = _open_npz(source, path)
    else:
        raise InputError(f"{path}: no such file or folder", hint="give an npz file or a folder of images")
    if found.n == 0:
        hint = f"images end in {', '.join(sorted(_SUFFIXES))}" if path.is_dir() else ""
        raise InputError(f"{path}: expected at least one image, found none", hint=hint)
    return found


def _synthetic(preprocess: Preprocess) -> ImageSet:
    shape = (preprocess.height, preprocess.width)
    shape = shape if preprocess.channels == 1 else (*shape, 3)  # type: ignore[assignment]
    pixels = np.random.default_rng(0).integers(0, 256, (_SYNTHETIC_N, *shape), np.uint8)
    return _from_pixels(SYNTHETIC, pixels, None)


def _noise(bare: BareInput) -> ImageSet:
    """Give tensors of normally distributed numbers, as normalized images have them."""
    tensors = np.random.default_rng(0).standard_normal((_NOISE_N, *bare.shape)).astype(np.float32)
    return _from_pixels(SYNTHETIC, tensors, None)


def _from_pixels(name: str, pixels: np.ndarray, labels: np.ndarray | None) -> ImageSet:
    hashes = tuple(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels)
    return ImageSet(
        name=name, n=len(pixels), labels=labels, hashes=hashes, load=lambda index: np.asarray(pixels[index])
    )


def _open_npz(name: str, path: Path) -> ImageSet:
    try:
        with path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an npz file with an array 'images', found one bare array")
            arrays = {key: data[key] for key in data.files if key in ("images", "labels")}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: not a whole npz file: {error}", hint="it may be cut off: get it again") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable npz file: {error}") from error
    pixels, labels = arrays.get("images"), arrays.get("labels")
    if pixels is None:
        raise InputError(f"{path}: expected an array 'images', found none")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
        raise InputError(
            f"{path}: expected uint8 images (n, H, W) or (n, H, W, 3), found {pixels.dtype} {pixels.shape}",
            hint="store the pixels as they are, 0..255: the preprocessing is applied when they are read",
        )
    if labels is not None and labels.shape != (len(pixels),):
        raise InputError(f"{path}: expected {len(pixels)} labels, found {labels.shape}")
    if labels is not None and labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected labels as whole numbers, found {labels.dtype}")
    found = _from_pixels(name, pixels, None if labels is None else labels.astype(np.int64))
    _verify_manifest(path, found)
    return found


def _verify_manifest(path: Path, found: ImageSet) -> None:
    manifest = path.with_suffix(".json")
    if not manifest.is_file():
        return
    try:
        promised = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest}: not a manifest: expected JSON with 'sha256'") from error
    if len(promised) != found.n:
        raise InputError(f"{path}: its manifest promises {len(promised)} images, found {found.n}")
    for index, (a, b) in enumerate(zip(promised, found.hashes, strict=True)):
        if a != b:
            raise InputError(f"{path}: image {index} is not the one its manifest names")


def _open_folder(name: str, path: Path) -> ImageSet:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    classes = sorted({file.parent.name for file in files if file.parent != path})
    labelled = bool(classes) and all(file.parent.parent == path for file in files)
    labels = np.array([classes.index(file.parent.name) for file in files], np.int64) if labelled else None
    hashes = tuple(_digest_of(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return ImageSet(name=name, n=len(files), labels=labels, hashes=hashes, load=lambda index: _decode(files[index]))


@functools.cache
def _digest_of(file: Path, size: int, modified_ns: int) -> str:
    """Hash a file; a folder that is opened again is not read again while sizes and times are the same."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _decode(file: Path) -> np.ndarray:
    need("PIL", by="reading image files")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255 without a word
                raise InputError(f"{file}: expected 8 bits a channel, found mode '{image.mode}'", hint=_EIGHT_BITS)
            return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{file}: not a readable image: {error}") from error
