"""HDF5 of untrusted origin: read by a child process of limited time and memory, seen here as a plain tree."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base import lazy
from deploy_kit.base.errors import CheckpointError
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.checkpoint.formats.limits import damaged

MAGIC = b"\x89HDF\r\n\x1a\n"
_CHILD = "deploy_kit.checkpoint.formats.keras_files.hdf5_child"
_TREE, _NUMBERS, _ERROR = "tree.json", "numbers.bin", "error.json"
# Start and imports take 0.3 s of processor time, reading 0.5 s a GB; a busy machine makes them no more. The time on the
# clock is for a child that waits without end.
_SECONDS, _BYTES_A_SECOND, _WAITS = 8, 50 << 20, 30


@dataclass(frozen=True)
class Hdf5Group:
    """A group of an HDF5 file.

    Attributes:
        tree: Its attributes, groups and datasets, as the child wrote them.
        data: Numbers of all datasets of the file.
    """

    tree: dict[str, Any]
    data: bytes

    def attribute(self, name: str) -> Any:
        """Return an attribute: text, a list of texts, or None where it is absent or anything else."""
        return self.tree["attributes"].get(name)

    def names(self) -> tuple[str, ...]:
        """Return the names of its groups and datasets, as the file sorts them."""
        return (*self.tree["groups"], *self.tree["numbers"])

    def group(self, path: str) -> "Hdf5Group | None":
        """Return a group by its path, None where there is none."""
        tree: dict[str, Any] | None = self.tree
        for part in filter(None, path.split("/")):
            tree = None if tree is None else tree["groups"].get(part)
        return None if tree is None else Hdf5Group(tree, self.data)

    def numbers(self, path: str) -> np.ndarray | None:
        """Return a dataset by its path, read-only; None where there is none."""
        home, _, name = path.rpartition("/")
        group = self.group(home)
        if group is None or name not in group.tree["numbers"]:
            return None
        dtype, shape, offset = group.tree["numbers"][name]
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.empty(shape, dtype)
        return np.frombuffer(self.data, dtype, count, offset).reshape(shape)


def read_hdf5(file: Path) -> Hdf5Group:
    """Read an HDF5 file.

    Raises:
        CheckpointError: It is damaged, larger than the budget, or reaches into other files.
        MissingPackageError: h5py is not installed.
    """
    lazy.need("h5py", by="reading a Keras file")
    with temporary_folder() as folder:
        _run(file, folder)
        if (folder / _ERROR).is_file():
            message, hint = json.loads((folder / _ERROR).read_text())
            raise CheckpointError(message, hint=hint)
        if not (folder / _TREE).is_file():
            raise damaged("not a whole HDF5 file: reading it ends the process that does")
        return Hdf5Group(json.loads((folder / _TREE).read_text()), (folder / _NUMBERS).read_bytes())


def _run(file: Path, folder: Path) -> None:
    """Run the child process; what it prints and how it ends does not matter, only the files that it leaves."""
    root = str(Path(__file__).parents[4])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    seconds = math.ceil(_SECONDS + file.stat().st_size / _BYTES_A_SECOND)
    try:
        ended = subprocess.run(
            (sys.executable, "-m", _CHILD, str(file), str(folder), str(seconds)),
            env=os.environ | {"PYTHONPATH": paths, "HDF5_USE_FILE_LOCKING": "FALSE", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WAITS * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise damaged(f"not a whole HDF5 file: reading it took more than {_WAITS * seconds:.0f} s") from error
    if ended.returncode == -signal.SIGXCPU:
        raise damaged(f"not a whole HDF5 file: reading it took more than {seconds} s of processor time")
