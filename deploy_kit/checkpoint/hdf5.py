"""HDF5 of untrusted origin: groups and datasets of this one file, bounded; no link or reference out of it is followed.

h5py can follow external links, external raw data and virtual datasets into other files of the machine.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from deploy_kit import lazy
from deploy_kit.checkpoint.limits import Budget, damaged
from deploy_kit.errors import CheckpointError

MAGIC = b"\x89HDF\r\n\x1a\n"
# The 707 names of DenseNet-201's layers beside its config of 0.6 MB might be 0.4 GiB if each were as long as that.
_MAX_ATTRIBUTE = 1 << 30
# Texts of variable length lie in heaps that begin so; size as eight bytes, eight bytes on.
_HEAP, _CHUNK = b"GCOL", 1 << 22
_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError, LookupError, OverflowError, MemoryError, SystemError)


class Group:
    """A group of an HDF5 file: attributes, groups and datasets by name."""

    def __init__(self, group: Any, budget: Budget, heap: int) -> None:
        """Take an h5py group of a file whose largest heap has `heap` bytes."""
        self._group, self._budget, self._heap = group, budget, heap

    def attribute(self, name: str) -> Any:
        """Give an attribute: text, a tuple of texts, or None where it is absent or anything else."""
        if name not in self._group.attrs:
            return None
        found = self._group.attrs.get_id(name)
        # Every text may be the same one of the heap, as large as that: how a small file would fill memory.
        each = self._heap if found.dtype.kind == "O" else found.dtype.itemsize
        if math.prod(found.shape or ()) * each > _MAX_ATTRIBUTE:
            raise CheckpointError(f"refused: its attribute '{name}' is larger than any checkpoint's")
        value = self._group.attrs[name]
        if isinstance(value, (str, bytes)):
            return _text(value)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return tuple(_text(item) for item in value.tolist() if isinstance(item, (str, bytes)))
        return None

    def names(self) -> tuple[str, ...]:
        """Give the names of what is in it, as the file sorts them."""
        self._budget.step(len(self._group))
        return tuple(self._group)

    def group(self, path: str) -> "Group | None":
        """Give a group by its path, None where there is none."""
        h5py = lazy.need("h5py", by="reading a Keras file")
        found = self._own(path)
        return Group(found, self._budget, self._heap) if isinstance(found, h5py.Group) else None

    def numbers(self, path: str) -> np.ndarray | None:
        """Read a dataset by its path, None where there is none.

        Raises:
            CheckpointError: Kept in another file, or larger than the budget.
        """
        h5py = lazy.need("h5py", by="reading a Keras file")
        found = self._own(path)
        if not isinstance(found, h5py.Dataset):
            return None
        if found.is_virtual or found.external:
            raise CheckpointError(f"refused: '{path}' inside it lies in another file")
        if found.dtype.kind not in "fiub":
            return None
        self._budget.take(found.size * found.dtype.itemsize)
        return np.asarray(found[()])

    def _own(self, path: str) -> Any:
        """Walk to an object through this file's own groups."""
        h5py = lazy.need("h5py", by="reading a Keras file")
        place = self._group
        for part in path.split("/"):
            if not isinstance(place, h5py.Group) or part not in ("", *place):
                return None
            if not part:
                continue
            if not isinstance(place.get(part, getlink=True), h5py.HardLink):
                raise CheckpointError(f"refused: '{path}' inside it lies in another file")
            place = place[part]
        return place


@contextmanager
def open_hdf5(file: BinaryIO, budget: Budget) -> Iterator[Group]:
    """Open an HDF5 file.

    Raises:
        CheckpointError: Damaged.
        MissingPackageError: h5py is not installed.
    """
    h5py = lazy.need("h5py", by="reading a Keras file")
    heap = _largest_heap(file)
    try:
        with h5py.File(file, "r") as opened:
            yield Group(opened, budget, heap)
    except _BROKEN as error:
        raise damaged(f"not a whole HDF5 file ({type(error).__name__}: {error})") from error


def _largest_heap(file: BinaryIO) -> int:
    """Give the size of the largest heap that the file claims, at most that of the file."""
    size, largest, at = file.seek(0, io.SEEK_END), 0, 0
    while at < size:
        file.seek(at)
        data = file.read(_CHUNK + 16)
        place = data.find(_HEAP)
        while 0 <= place < _CHUNK:
            largest = max(largest, int.from_bytes(data[place + 8 : place + 16], "little"))
            place = data.find(_HEAP, place + 1)
        at += _CHUNK
    file.seek(0)
    return min(largest, size)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
