"""Image files: folders of them, their hashes, and which of them can be read."""

import functools
import hashlib
import os
import stat
import struct
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy_kit.base.errors import InputError, nearest
from deploy_kit.base.lazy import need
from deploy_kit.images.ordered import in_order
from deploy_kit.images.sets import ImageSet, Orientation

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
        ".tif", ".tiff", ".gif",
    }
)  # fmt: skip
# Decoders that Pillow may use. Left to itself it asks all it has by the bytes, and one of them (EPS) starts another
# program, Ghostscript, on a file that somebody named .png.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
# Endings of what lies beside images without being one.
_NO_IMAGE = frozenset(
    {"", ".txt", ".csv", ".tsv", ".json", ".md", ".xml", ".yaml", ".yml", ".html", ".db", ".ini", ".log"}
)
_ORIENTATION = 0x0112  # of EXIF; 1 is upright
_SAY_ORIENTATION = (
    "say what the model was trained on: --orientation stored (pixels as they lie in the file, as torchvision's "
    "loader gives them) or --orientation upright (turned, as viewers and OpenCV show them)"
)
CLASSES = "classes.txt"
_HEAD_BYTES = 1 << 20
_GRAY = frozenset({"L", "LA", "1"})
_EIGHT_BITS = "convert the images to 8 bits as they were in training"
_ONE_FRAME = "give a file of each frame, or leave such files out: --skip-bad ('skip_bad: true' in a recipe)"
_SKIP = "mend or remove it, or leave out what cannot be read: --skip-bad ('skip_bad: true' in a recipe)"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a folder or a manifest says, before any image is read.

    Attributes:
        files: Path of each file.
        names: Name of each file in the folder or manifest.
        labels: Label of each file, as in `ImageSet`; None without labels.
        classes: As in `ImageSet`.
        skipped: Rows of a manifest that were left out.
        passed_over: (ending, number) of the files of a folder that are no images by their ending, though they may be.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[tuple[str, int], ...] = ()


def folder(path: Path) -> Listing:
    """List the images below a folder, sorted; one sub-folder a class gives labels.

    Classes are numbered in the order of their names, as torchvision's ImageFolder numbers them, or in the order of
    `CLASSES` in the folder. A sub-folder without images is a class too, and what lies deeper in one is of its class.
    Links to folders are followed; what begins with a dot is passed over.

    Raises:
        InputError: A folder cannot be read, images lie beside class folders, or `CLASSES` does not name a sub-folder.
    """
    inside, found, others = _walk(path)
    files = tuple(sorted(found))
    passed_over = tuple(sorted(others.items()))
    names = tuple(file.relative_to(path).as_posix() for file in files)
    known, steps = class_names(path), [name.split("/") for name in names]
    if not any(len(parts) == 2 for parts in steps):
        return Listing(files=files, names=names, labels=None, passed_over=passed_over)
    stray = next((parts[0] for parts in steps if len(parts) == 1), None)
    if stray is not None:
        raise InputError(
            f"{path / stray}: lies beside folders of images: is it of a class, or are these no classes?",
            hint="move it into the folder of its class, or all images into one folder where there are no labels",
        )
    classes = known or inside
    numbers = {name: number for number, name in enumerate(classes)}
    for one in {parts[0] for parts in steps} - numbers.keys():
        raise InputError(f"{path / CLASSES}: no line names the class of the folder '{one}'", hint=nearest(one, classes))
    labels = np.array([numbers[parts[0]] for parts in steps], np.int64)
    return Listing(files=files, names=names, labels=labels, classes=classes, passed_over=passed_over)


def class_names(path: Path) -> tuple[str, ...]:
    """Read the names of a model's classes, one a line in its order; empty where no such file is.

    Raises:
        InputError: A name is there twice, or the file is no text.
    """
    file = path / CLASSES
    return read_class_names(file) if file.is_file() else ()


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read names of classes, one a line.

    Raises:
        InputError: A name is there twice, or the file is no text.
    """
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected one name a line: {error}") from error
    if len(set(names)) < len(names):
        doubled = Counter(names).most_common(1)[0][0]
        raise InputError(f"{file}: the class '{doubled}' is there twice")
    return names


def opened(name: str, listing: Listing, *, skip_bad: bool, orientation: Orientation | None = None) -> ImageSet:
    """Hash the files of a listing; with `skip_bad` also decode them, and leave out what cannot be read.

    Args:
        name: As the recipe names the set.
        listing: Its files.
        skip_bad: Leave out what cannot be read.
        orientation: What becomes of images that say that they are to be turned (EXIF); None where nobody said.

    Raises:
        InputError: A file cannot be read, without `skip_bad`; or an image is to be turned, and nobody said whether.
    """

    def look(index: int) -> _FileLook:
        return _looked(listing.files[index], decoded=skip_bad)

    with closing(in_order(look, len(listing.files))) as looks:
        seen = tuple(looks)
    bad = {index: look.fault for index, look in enumerate(seen) if look.fault}
    if bad and not skip_bad:
        raise InputError(f"{listing.files[min(bad)]}: {bad[min(bad)]}", hint=_SKIP)
    good = [index for index in range(len(seen)) if index not in bad]
    turned = [listing.names[index] for index in good if seen[index].turned]
    if turned and orientation is None:
        raise InputError(
            f"{name}: {len(turned)} of {len(good)} images say that they are to be turned (EXIF orientation), the first "
            f"is {turned[0]}",
            hint=_SAY_ORIENTATION,
        )
    upright = orientation == "upright"
    files = tuple(listing.files[index] for index in good)
    return ImageSet(
        name=name,
        n=len(good),
        labels=None if listing.labels is None else listing.labels[good],
        hashes=tuple(seen[index].digest for index in good),
        load=lambda index: decode(files[index], upright=upright),
        classes=listing.classes,
        files=tuple(listing.names[index] for index in good),
        skipped=(*listing.skipped, *((listing.names[index], fault) for index, fault in bad.items())),
        passed_over=listing.passed_over,
        turned=tuple(turned) if upright else (),
    )


def decode(file: Path, *, upright: bool = False) -> np.ndarray:
    """Read one image file: uint8 (H, W) if it is gray, else (H, W, 3), without transparency.

    Turned by its EXIF tag where `upright`. Of 16 bits in colors Pillow gives the higher eight.

    Raises:
        InputError: It is no image, broken, or gray with more than 8 bits.
    """
    need("PIL", by="reading image files")
    from PIL import Image

    Image.init()  # its search for a decoder is not safe while another thread loads them (Pillow 13)
    try:
        with Image.open(file, formats=FORMATS) as opened_file:
            return _pixels(opened_file, str(file), upright=upright)
    # What Pillow's decoders raise on broken files; UnidentifiedImageError is an OSError.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable image: {error}", hint=_SKIP) from error


def read_image(image: "Path | Image.Image", orientation: Orientation | None) -> np.ndarray:
    """Read one image that a user hands over, a file or what Pillow opened, as `decode` does.

    Raises:
        InputError: As `decode`; or it says that it is to be turned (EXIF), and nobody said whether.
    """
    need("PIL", by="reading image files")
    turned = _orientation_of(image) if isinstance(image, Path) else image.getexif().get(_ORIENTATION, 0)
    where, upright = str(image) if isinstance(image, Path) else "image", orientation == "upright"
    if turned not in (0, 1) and orientation is None:
        raise InputError(f"{where}: says that it is to be turned (EXIF orientation)", hint=_SAY_ORIENTATION)
    return decode(image, upright=upright) if isinstance(image, Path) else _pixels(image, where, upright=upright)


def _pixels(image: "Image.Image", where: str, *, upright: bool) -> np.ndarray:
    """Return what `decode` says of an image that is open."""
    from PIL import ImageOps

    # A photograph with previews (MPO) has frames as well, and the first is the photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{where}: expected one image, found several frames or pages", hint=_ONE_FRAME)
    turned = ImageOps.exif_transpose(image) if upright else image
    if turned.mode == "F" or turned.mode.startswith("I"):  # Pillow would cut 16 bits off at 255 without a word
        raise InputError(f"{where}: expected 8 bits a channel, found mode '{turned.mode}'", hint=_EIGHT_BITS)
    return np.asarray(turned.convert("L" if turned.mode in _GRAY else "RGB"))


def files_below(path: Path, endings: frozenset[str]) -> list[Path]:
    """List the files below a folder that have one of these endings, sorted; what begins with a dot is passed over.

    Raises:
        InputError: A folder cannot be read.
    """
    return sorted(_walk(path, endings)[1])


def _walk(path: Path, endings: frozenset[str] = SUFFIXES) -> tuple[tuple[str, ...], list[Path], Counter[str]]:
    """Find the names of the sub-folders, sorted, the image files at any depth, and how many others have which ending.

    Links to folders are followed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: not a readable folder: {error.strerror}", hint="check who may read it: ls -ld"
        ) from error

    found, inside, others = list[Path](), tuple[str, ...](), Counter[str]()
    for top, folders, files in os.walk(path, onerror=refuse, followlinks=True):
        here = Path(top)
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_above(here / name, here)]
        if here == path:
            inside = tuple(sorted(folders))
        for file in files:
            ending = Path(file).suffix.lower()
            if ending in endings and not file.startswith("."):
                found.append(here / file)
            elif ending not in _NO_IMAGE and not file.startswith("."):
                others[ending] += 1
    return inside, found, others


def _is_above(folder: Path, here: Path) -> bool:
    """Whether a folder is a link to one on the way to it: such a folder has no end."""
    return folder.is_symlink() and folder.resolve() in {one.resolve() for one in (here, *here.absolute().parents)}


@dataclass(frozen=True, kw_only=True)
class _FileLook:
    """What is known of a file before it is used: its hash, whether it is to be turned, and why it cannot be used."""

    digest: str = ""
    turned: bool = False
    fault: str = ""


def _looked(file: Path, *, decoded: bool) -> _FileLook:
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe or a device has no end
            return _FileLook(fault="is no regular file")
        look = _look_of(file, state.st_size, state.st_mtime_ns)
    except OSError as error:
        return _FileLook(fault=f"cannot be read: {error.strerror}")
    return replace(look, fault=_fault_of(file, state.st_size, state.st_mtime_ns)) if decoded else look


@functools.cache
def _look_of(file: Path, size: int, modified_ns: int) -> _FileLook:
    """Hash a file; a folder that is opened again is not read again while sizes and times are the same."""
    with file.open("rb") as stream:
        start = stream.read(_HEAD_BYTES)
        digest = hashlib.sha256(start)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    # Few files have the tag, and only those are opened for it: TIFF stores it as a tag of its own.
    maybe = any(mark in start for mark in (b"Exif\0\0", b"eXIf", b"EXIF")) or start[:4] in (b"II*\0", b"MM\0*")
    return _FileLook(digest=digest.hexdigest(), turned=maybe and _orientation_of(file) not in (0, 1))


def _orientation_of(file: Path) -> int:
    """Read the EXIF orientation of an image file; 0 where it has none, or cannot be read."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            orientation = image.getexif().get(_ORIENTATION, 0)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return 0
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 0


@functools.cache
def _fault_of(file: Path, size: int, modified_ns: int) -> str:
    """Decode a file to see whether that works; say why not."""
    try:
        decode(file)
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""
