"""HDF5 of untrusted origin: groups and datasets of this one file, bounded; no link or reference out of it is followed.

h5py can follow external links, external raw data and virtual datasets into other files of the machine.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from deploy_kit import lazy
from deploy_kit.checkpoint.limits import Budget, damaged
from deploy_kit.errors import CheckpointError

MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_ATTRIBUTE = 16 << 20
_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError, LookupError, OverflowError, MemoryError, SystemError)


class Group:
    """A group of an HDF5 file: attributes, groups and datasets by name."""

    def __init__(self, group: Any, budget: Budget) -> None:
        """Take an h5py group."""
        self._group, self._budget = group, budget

    def attribute(self, name: str) -> Any:
        """Give an attribute: text, a tuple of texts, or None where it is absent or anything else."""
        if name not in self._group.attrs:
            return None
        found = self._group.attrs.get_id(name)
        if math.prod(found.shape or ()) * found.dtype.itemsize > _MAX_ATTRIBUTE:
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
        return Group(found, self._budget) if isinstance(found, h5py.Group) else None

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
    try:
        with h5py.File(file, "r") as opened:
            yield Group(opened, budget)
    except _BROKEN as error:
        raise damaged(f"not a whole HDF5 file ({type(error).__name__}: {error})") from error


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
