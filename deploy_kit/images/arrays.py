"""Arrays of numpy's files (npy, npz) as their headers promise them: no number is lost, and none is made up."""

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from deploy_kit.base.errors import InputError

# Pixels of images shrink to a half or a tenth; deflate's utmost, about 1,000 to 1, is what a file made to be large has.
_LARGE, _MOST_RATIO = 256 << 20, 100
# What numpy raises on a header that is damaged.
_DAMAGED = (OSError, ValueError, SyntaxError, tokenize.TokenError, RuntimeError, MemoryError)


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read these arrays of an npz file, as far as it has them; no array takes more memory than its file holds.

    Raises:
        InputError: Not a whole npz file, or an array that is not what its header says.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            if start and not start.startswith((b"PK", b"\x93NUMPY")):
                raise InputError(f"{path}: expected a folder of images, a CSV manifest or an npz file")
            if start == b"\x93NUMPY":
                raise InputError(f"{path}: expected an npz file with an array 'images', found one bare array")
            with zipfile.ZipFile(file) as archive:
                members = {key: [one for one in archive.namelist() if one in (key, f"{key}.npy")] for key in names}
                return {key: _member(path, archive, found) for key, found in members.items() if found}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: not a whole npz file: {error}", hint="it may be cut off: get it again") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: not a readable npz file: {error}") from error


def read_npy(path: Path) -> np.ndarray:
    """Read an npy file that holds the numbers of its header, no fewer and no more.

    Raises:
        InputError: It is none.
    """
    try:
        with path.open("rb") as file:
            _expect_held(str(path), file, os.fstat(file.fileno()).st_size, "numpy.save")
            file.seek(0)
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except (EOFError, *_DAMAGED) as error:
        raise InputError(f"{path}: not a readable npy file: {error}") from error


class _Sink:
    """Takes what is written, and is no file for numpy: what numpy writes into a file in C fails without a reason."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def write_npy(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an npy file.

    Raises:
        OSError: It cannot be written whole: with the reason and the path, which `numpy.save` does not state.
    """
    try:
        with Path(path).open("wb") as file:
            np.lib.format.write_array(_Sink(file), np.asanyarray(array), allow_pickle=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _member(path: Path, archive: zipfile.ZipFile, names: list[str]) -> np.ndarray:
    """Read one array, once its header, its size and what it takes in memory agree."""
    name, again = names[0], "save it again with numpy.savez"
    if len(names) > 1:
        raise InputError(f"{path}: '{name}' is there {len(names)} times: of several arrays none is taken", hint=again)
    info = archive.getinfo(name)
    with archive.open(name) as member:
        held = _expect_held(f"{path}: '{name}'", member, info.file_size, "numpy.savez")
    if held > _LARGE and held > _MOST_RATIO * max(1, info.compress_size):
        raise InputError(
            f"{path}: '{name}' unpacks from {info.compress_size:,} to {held:,} bytes, far more than images do",
            hint="give the images as a folder of files",
        )
    with archive.open(name) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _expect_held(where: str, file: IO[bytes], size: int, writer: str) -> int:
    """Read the header of an npy file of `size` bytes, and return the bytes of its numbers."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they would run code")
    if claimed != held:
        raise InputError(
            f"{where}: its header asks for {claimed:,} bytes of {dtype}, and it holds {held:,}",
            hint=f"it is damaged or was not written by numpy: save it again with {writer}",
        )
    return held
