"""The program that touches HDF5: reads one file in a process of its own, writes what it holds as JSON and raw numbers.

libhdf5 is C code that a few flipped bytes send into endless loops; here it can only end this process. h5py would also
follow links, external data and virtual datasets into other files of the machine: none of them is followed.

    python -m deploy_kit.checkpoint.formats.keras_files.hdf5_child FILE FOLDER SECONDS
"""

import json
import math
import resource
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged

TREE, NUMBERS, ERROR = "tree.json", "numbers.bin", "error.json"
_MAX_LEVELS = 16
# The 707 names of DenseNet-201's layers beside its config of 0.6 MB might be 0.4 GiB if each were as long as that.
_MAX_ATTRIBUTE = 1 << 30
# Texts of variable length lie in heaps that begin so; size as eight bytes, eight bytes on.
_HEAP = b"GCOL"
# Groups of no use for the logits, and often twice the network's size.
_ASIDE = frozenset({"optimizer", "optimizer_weights"})
_OWN_BYTES = 256 << 20
_BROKEN = (OSError, RuntimeError, ValueError, TypeError, LookupError, OverflowError, MemoryError, AttributeError)


def main(file: Path, folder: Path, seconds: int) -> int:
    """Read `file` within so many seconds of processor time, write into `folder`; return 0, or 2 with an error there."""
    budget = ReadLimits(file.stat().st_size)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    _bound_memory(budget)
    try:
        with (folder / NUMBERS).open("wb") as numbers:
            reader = _Reader(budget, numbers, _largest_heap(file))
            with h5py.File(file, "r") as root:
                tree = reader.group(root, "", 0)
        (folder / TREE).write_text(json.dumps(tree))
    except CheckpointError as error:
        return _failed(error, folder)
    except _BROKEN as error:
        return _failed(damaged(f"not a whole HDF5 file ({type(error).__name__}: {error})"), folder)
    return 0


def _bound_memory(budget: ReadLimits) -> None:
    """Limit memory to what a sound file needs: numbers, their copy in another byte order, the library's own."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + 2 * budget.bytes + _OWN_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _failed(error: CheckpointError, folder: Path) -> int:
    (folder / ERROR).write_text(json.dumps([str(error), error.hint]))
    return error.exit_code


def _largest_heap(file: Path) -> int:
    """Return the size of the largest heap that the file claims, at most that of the file."""
    data = file.read_bytes()
    largest, place = 0, data.find(_HEAP)
    while place >= 0:
        largest = max(largest, int.from_bytes(data[place + 8 : place + 16], "little"))
        place = data.find(_HEAP, place + 1)
    return min(largest, len(data))


class _Reader:
    """Walks a file's own groups."""

    def __init__(self, budget: ReadLimits, numbers: Any, heap: int) -> None:
        self.budget, self.numbers, self.heap = budget, numbers, heap

    def group(self, group: Any, path: str, level: int) -> dict[str, Any]:
        """Return a group's attributes, its groups, and where the numbers of its datasets were written."""
        if level > _MAX_LEVELS:
            raise CheckpointError("refused: its groups are nested without end")
        result: dict[str, Any] = {"attributes": {}, "groups": {}, "numbers": {}}
        for name in group.attrs:
            self.budget.step()
            result["attributes"][name] = self.attribute(group, name)
        for name in group:
            self.budget.step()
            below = f"{path}/{name}"
            if name in _ASIDE:
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _elsewhere(below)
            child = group[name]
            if isinstance(child, h5py.Group):
                result["groups"][name] = self.group(child, below, level + 1)
            elif isinstance(child, h5py.Dataset) and child.dtype.kind in "fiub":
                result["numbers"][name] = self.dataset(child, below)
        return result

    def attribute(self, group: Any, name: str) -> str | list[str] | None:
        """Return a text or a list of texts, None of anything else."""
        stored = group.attrs.get_id(name)
        # Every text may be the same one of the heap, as large as that: how a small file would fill memory.
        each = self.heap if stored.dtype.kind == "O" else stored.dtype.itemsize
        if math.prod(stored.shape or ()) * each > _MAX_ATTRIBUTE:
            raise CheckpointError(f"refused: its attribute '{name}' is larger than any checkpoint's")
        value = group.attrs[name]
        if isinstance(value, (str, bytes)):
            return _text(value)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return [_text(item) for item in value.tolist() if isinstance(item, (str, bytes))]
        return None

    def dataset(self, stored: Any, path: str) -> list[Any]:
        """Write a dataset's numbers and return (dtype, shape, offset)."""
        if stored.is_virtual or stored.external:
            raise _elsewhere(path)
        self.budget.take(stored.size * stored.dtype.itemsize)
        value = np.asarray(stored[()])
        value = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False)).reshape(value.shape)
        offset = self.numbers.tell()
        self.numbers.write(value.data if value.size else b"")
        return [value.dtype.str, list(value.shape), offset]


def _elsewhere(path: str) -> CheckpointError:
    return CheckpointError(f"refused: '{path}' inside it lies in another file", hint="give a file that is whole")


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
