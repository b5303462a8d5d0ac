"""Image files: folders of them, their hashes, and which of them can be read."""

import functools
import hashlib
import os
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_kit.base.errors import InputError, nearest
from deploy_kit.base.lazy import need
from deploy_kit.images.ordered import in_order
from deploy_kit.images.sets import ImageSet

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
CLASSES = "classes.txt"
_GRAY = frozenset({"L", "LA", "1"})
_EIGHT_BITS = "convert the images to 8 bits as they were in training"
_SKIP = "mend or remove it, or leave out what cannot be read: --skip-bad ('skip_bad: true' in a recipe)"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a folder or a manifest says, before any image is read.

    Attributes:
        files: Where they lie.
        names: As folder or manifest has them.
        labels: Of each file, as in `ImageSet`.
        classes: As in `ImageSet`.
        skipped: Rows of a manifest that were left out.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def folder(path: Path) -> Listing:
    """List the images below a folder, sorted; one sub-folder a class gives labels.

    Classes are numbered in the order of their names, as torchvision's ImageFolder numbers them, or in the order of
    `CLASSES` in the folder. A sub-folder without images is a class too, and what lies deeper in one is of its class.
    Links to folders are followed; what begins with a dot is passed over.

    Raises:
        InputError: A folder cannot be read, images lie beside class folders, or `CLASSES` does not name a sub-folder.
    """
    inside, found = _walk(path)
    files = tuple(sorted(found))
    names = tuple(file.relative_to(path).as_posix() for file in files)
    known, steps = class_names(path), [name.split("/") for name in names]
    if not any(len(parts) == 2 for parts in steps):
        return Listing(files=files, names=names, labels=None)
    stray = next((parts[0] for parts in steps if len(parts) == 1), None)
    if stray is not None:
        raise InputError(
            f"{path / stray}: lies beside folders of images: is it of a class, or are these no classes?",
            hint="move it into the folder of its class, or all images into one folder where there are no labels",
        )
    classes = known or inside
    for one in {parts[0] for parts in steps} - set(classes):
        raise InputError(f"{path / CLASSES}: no line names the class of the folder '{one}'", hint=nearest(one, classes))
    labels = np.array([classes.index(parts[0]) for parts in steps], np.int64)
    return Listing(files=files, names=names, labels=labels, classes=classes)


def class_names(path: Path) -> tuple[str, ...]:
    """Read the names of a model's classes, one a line in its order; empty where no such file is.

    Raises:
        InputError: A name is there twice, or the file is no text.
    """
    file = path / CLASSES
    if not file.is_file():
        return ()
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected one name a line: {error}") from error
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"{file}: the class '{doubled}' is there twice")
    return names


def opened(name: str, listing: Listing, *, skip_bad: bool) -> ImageSet:
    """Hash the files of a listing; with `skip_bad` also decode them, and leave out what cannot be read.

    Raises:
        InputError: A file cannot be read, without `skip_bad`.
    """

    def look(index: int) -> tuple[str, str]:
        return _looked(listing.files[index], decoded=skip_bad)

    with closing(in_order(look, len(listing.files))) as looks:
        seen = tuple(looks)
    bad = {index: fault for index, (_, fault) in enumerate(seen) if fault}
    if bad and not skip_bad:
        raise InputError(f"{listing.files[min(bad)]}: {bad[min(bad)]}", hint=_SKIP)
    good = [index for index in range(len(seen)) if index not in bad]
    files = tuple(listing.files[index] for index in good)
    return ImageSet(
        name=name,
        n=len(good),
        labels=None if listing.labels is None else listing.labels[good],
        hashes=tuple(seen[index][0] for index in good),
        load=lambda index: decode(files[index]),
        classes=listing.classes,
        files=tuple(listing.names[index] for index in good),
        skipped=(*listing.skipped, *((listing.names[index], fault) for index, fault in bad.items())),
    )


def decode(file: Path) -> np.ndarray:
    """Read one image file: uint8 (H, W) if it is gray, else (H, W, 3), without transparency.

    Turned by no EXIF tag, as torchvision reads files. Of 16 bits in colors Pillow gives the higher eight.

    Raises:
        InputError: It is no image, broken, or gray with more than 8 bits.
    """
    need("PIL", by="reading image files")
    from PIL import Image

    Image.init()  # its search for a decoder is not safe while another thread loads them (Pillow 13)
    try:
        with Image.open(file) as image:
            if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255 without a word
                raise InputError(f"{file}: expected 8 bits a channel, found mode '{image.mode}'", hint=_EIGHT_BITS)
            return np.asarray(image.convert("L" if image.mode in _GRAY else "RGB"))
    # What Pillow's decoders raise on broken files; UnidentifiedImageError is an OSError.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable image: {error}", hint=_SKIP) from error


def _walk(path: Path) -> tuple[tuple[str, ...], list[Path]]:
    """Give the names of the sub-folders, sorted, and the image files at any depth; links to folders are followed."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: not a readable folder: {error.strerror}", hint="check who may read it: ls -ld"
        ) from error

    found, inside = list[Path](), tuple[str, ...]()
    for top, folders, files in os.walk(path, onerror=refuse, followlinks=True):
        here = Path(top)
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_above(here / name, here)]
        if here == path:
            inside = tuple(sorted(folders))
        found += [here / file for file in files if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")]
    return inside, found


def _is_above(folder: Path, here: Path) -> bool:
    """Whether a folder is a link to one on the way to it: such a folder has no end."""
    return folder.is_symlink() and folder.resolve() in {one.resolve() for one in (here, *here.absolute().parents)}


def _looked(file: Path, *, decoded: bool) -> tuple[str, str]:
    """Give the hash of a file, and why it cannot be used; empty if it can."""
    try:
        stat = file.stat()
        digest = _digest_of(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    return digest, _fault_of(file, stat.st_size, stat.st_mtime_ns) if decoded else ""


@functools.cache
def _digest_of(file: Path, size: int, modified_ns: int) -> str:
    """Hash a file; a folder that is opened again is not read again while sizes and times are the same."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@functools.cache
def _fault_of(file: Path, size: int, modified_ns: int) -> str:
    """Decode a file to see whether that works; say why not."""
    try:
        decode(file)
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""
