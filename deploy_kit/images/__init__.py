"""Images from npz files, folders and CSV manifests → preprocessed (N, C, H, W) float32 batches, streamed.

Does not hold a preprocessed set in memory, and never calls random numbers images: seeded noise has its own name.
"""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError, no_such_file
from deploy_kit.images import files, manifest, npz, truth
from deploy_kit.images.sets import ImageSet, Orientation, of_pixels
from deploy_kit.images.tensors import Crops, mean_of_crops, normalize, ten_crops, to_pixels, to_tensors
from deploy_kit.records.artifacts import BareInput, Preprocess

__all__ = [
    "SYNTHETIC", "Crops", "ImageSet", "ImageSource", "Orientation", "mean_of_crops", "normalize", "open_set", "part_of",
    "ten_crops", "to_pixels", "to_tensors",
]  # fmt: skip

SYNTHETIC = "synthetic"
_SYNTHETIC_N, _NOISE_N = 32, 8
_UNKNOWN = (
    "say to deploy or export how they were prepared in training, e.g. --input 224x224 --resize 256 --mean "
    "0.485,0.456,0.406 --std 0.229,0.224,0.225, or leave --images and --calibration out"
)


def open_set(
    source: str,
    preprocess: Preprocess | BareInput,
    *,
    skip_bad: bool = False,
    orientation: Orientation | None = None,
    masks: str | None = None,
) -> ImageSet:
    """Open an image set.

    Args:
        source: ``bundled:NAME``, an npz file (``images`` uint8, optional ``labels``), a folder of images (one
            sub-folder a class gives labels), a CSV manifest, or ``synthetic`` for seeded noise of the input's size.
        preprocess: Gives the size of synthetic images; others are read as they are.
        skip_bad: Decode every file now, and leave out what cannot be read and lines of a manifest that cannot be
            used; otherwise a bad line is an error now, and a bad file when it is decoded.

        orientation: Whether image files with an EXIF orientation are read as they are ``stored`` or turned
            ``upright``; such files are refused where nobody said.
        masks: Folder of masks, files of the same relative path as the images; class folders are no labels then.

    Raises:
        InputError: Missing, empty, of the wrong kind, or not what its manifest says; or images for a bare input.
    """
    if isinstance(preprocess, BareInput):
        if source != SYNTHETIC:
            raise InputError(f"{source}: how images become the input of this model is not known", hint=_UNKNOWN)
        return _noise(preprocess)
    if source == SYNTHETIC:
        return _synthetic(preprocess)
    return _read_set(source, skip_bad=skip_bad, orientation=orientation, masks=masks)


def _read_set(source: str, *, skip_bad: bool, orientation: Orientation | None, masks: str | None) -> ImageSet:
    """Open a set of images that are read, which is the same for every input."""
    if not source:
        raise InputError("images: expected a path or a name, found an empty text")
    path = bundled.resolve_bundled("calibration", source)
    if path.is_dir():
        found = files.opened(source, files.folder(path), skip_bad=skip_bad, orientation=orientation)
    elif path.is_file() and path.suffix.lower() == ".csv":
        listing = manifest.read_manifest(path, skip_bad=skip_bad)
        found = files.opened(source, listing, skip_bad=skip_bad, orientation=orientation)
    elif path.is_file():
        found = npz.open_npz(source, path)
    else:
        raise no_such_file(path, "file or folder", hint="give a folder of images, a CSV manifest or an npz file")
    if found.n == 0:
        raise _empty(path, found)
    found = replace(found, skip_bad=skip_bad, orientation=orientation)
    return found if masks is None else truth.with_masks(found, Path(masks))


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image set by its name: opened once, at first use, by however many stages read it.

    Attributes:
        name: As the recipe names it; see `open_set`.
        skip_bad: Whether images that cannot be read are left out, counted and named.
        orientation: What becomes of images that say that they are to be turned; see `open_set`.
        masks: Folder of masks; see `open_set`.
    """

    name: str
    skip_bad: bool = False
    orientation: Orientation | None = None
    masks: str | None = None
    _opened: dict[object, ImageSet] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_noise(self) -> bool:
        """Whether it is seeded noise, which says nothing about accuracy."""
        return self.name == SYNTHETIC

    def read(self) -> None:
        """Open images that are read before the model's input is known, so that what is wrong with them is said first.

        Raises:
            InputError: As `open_set`.
        """
        if not self.is_noise and None not in self._opened:
            self._opened[None] = _read_set(
                self.name, skip_bad=self.skip_bad, orientation=self.orientation, masks=self.masks
            )

    def open(self, preprocess: Preprocess | BareInput) -> ImageSet:
        """Open the set for a model's input, or return it as it was opened before.

        Raises:
            InputError: As `open_set`.
        """
        # Pixels of noise and the refusal of a bare input depend on the input; images that are read do not.
        key = preprocess if self.is_noise or isinstance(preprocess, BareInput) else None
        if key not in self._opened:
            self._opened[key] = open_set(
                self.name, preprocess, skip_bad=self.skip_bad, orientation=self.orientation, masks=self.masks
            )
        return self._opened[key]


def part_of(
    source: str,
    preprocess: Preprocess | BareInput,
    hashes: tuple[str, ...],
    *,
    skip_bad: bool = False,
    orientation: Orientation | None = None,
) -> ImageSet:
    """Open the images of these hashes, in their order, in another process than the one that chose them.

    Args:
        source: As `open_set`, as are `preprocess`, `skip_bad` and `orientation`.
        preprocess: See there.
        hashes: sha256 of each image, as `ImageSet.hashes` has it.
        skip_bad: See there.
        orientation: See there.

    Raises:
        InputError: As `open_set`; or this process sees other images under this name.
    """
    whole = _opened_once(source, preprocess, skip_bad, orientation)
    places = {digest: index for index, digest in enumerate(whole.hashes)}
    strange = next((digest for digest in hashes if digest not in places), None)
    if strange is not None:
        raise InputError(
            f"{source}: a worker sees other images here: none has sha256 {strange[:12]}…",
            hint="put the same images at the same path on every machine, e.g. in a shared folder",
        )
    at = [places[digest] for digest in hashes]
    files_ = tuple(whole.files[index] for index in at) if whole.files else ()
    return replace(whole, n=len(at), labels=None, hashes=hashes, files=files_, load=lambda index: whole.load(at[index]))


@functools.lru_cache(maxsize=2)
def _opened_once(
    source: str, preprocess: Preprocess | BareInput, skip_bad: bool, orientation: Orientation | None
) -> ImageSet:
    return open_set(source, preprocess, skip_bad=skip_bad, orientation=orientation)


def _empty(path: Path, found: ImageSet) -> InputError:
    if found.skipped:
        return InputError(f"{path}: expected at least one usable image, found none ({found.left_out})")
    hint = f"images end in {', '.join(sorted(files.SUFFIXES))}" if path.is_dir() else ""
    return InputError(f"{path}: expected at least one image, found none", hint=hint)


def _synthetic(preprocess: Preprocess) -> ImageSet:
    shape = (preprocess.height, preprocess.width)
    shape = shape if preprocess.channels == 1 else (*shape, 3)  # type: ignore[assignment]
    pixels = np.random.default_rng(0).integers(0, 256, (_SYNTHETIC_N, *shape), np.uint8)
    return of_pixels(SYNTHETIC, pixels, None)


def _noise(bare: BareInput) -> ImageSet:
    """Return tensors of normally distributed numbers, as normalized images have them."""
    tensors = np.random.default_rng(0).standard_normal((_NOISE_N, *bare.shape)).astype(np.float32)
    return of_pixels(SYNTHETIC, tensors, None)
