"""Folders of the moment: held by a lock while their owner lives, removed by whoever comes next once it does not.

A process id says nothing across containers and is given again; a lock of the kernel (flock) holds in every container
that shares the file system, and ends with its process however that ends.
"""

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deploy_kit.base.errors import StageError
from deploy_kit.base.text_files import verify_utf8

_LOCK, _TEMPORARY = ".lock", "deploykit-"
_DIGITS = 16  # of the random part of a name: what only begins like one of ours is somebody else's
# A folder without a lock was left by a version that had none; an hour spares one whose owner still works in it.
_UNLOCKED_S = 3600


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for the moment where temporary files go (TMPDIR); those of dead processes go first.

    Raises:
        StageError: There is no place for temporary files.
        OSError: It cannot be made.
    """
    with live_folder(temporary_place(), _TEMPORARY, alone=False) as folder:
        yield folder


def temporary_place() -> Path:
    """Return the folder that temporary files go to.

    Raises:
        StageError: None can be written to, as in a container whose file systems are read-only.
        InputError: Its path is not in UTF-8.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StageError(
            f"no place for temporary files: {error.strerror}",
            hint="name a folder that can be written: export TMPDIR=FOLDER",
        ) from error
    verify_utf8(place, "export TMPDIR=FOLDER")
    return place


@contextlib.contextmanager
def live_folder(parent: Path, prefix: str, *, alone: bool = True) -> Iterator[Path]:
    """Make a folder that goes when the block ends; before and after, those of its kind go whose owner is dead.

    Args:
        parent: Existing folder to make it in.
        prefix: Start of its name, which says of which kind it is.
        alone: Whether every name of this kind in `parent` is deploykit's own.

    Raises:
        OSError: It cannot be made.
    """
    sweep(parent, prefix, alone=alone)
    folder = parent / f"{prefix}{secrets.token_hex(_DIGITS // 2)}"
    lock_path = folder.with_name(folder.name + _LOCK)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # before the folder is there: nobody ever sees it without its lock
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock_path.unlink(missing_ok=True)
            # A worker that was killed meanwhile, because its host was interrupted, had no time to remove its own.
            sweep(parent, prefix, alone=alone)


def sweep(parent: Path, prefix: str, *, alone: bool = True) -> None:
    """Remove what dead processes left of one kind; what cannot be removed, because it is another user's, stays."""
    ours = re.compile(f"{re.escape(prefix)}[0-9a-f]{{{_DIGITS}}}{re.escape(_LOCK)}")
    for lock_path in parent.glob(f"{prefix}*{_LOCK}"):
        if not alone and not ours.fullmatch(lock_path.name):
            continue
        with contextlib.suppress(OSError), lock_path.open("r+") as lock:
            if _free(lock):
                shutil.rmtree(lock_path.with_name(lock_path.name.removesuffix(_LOCK)), ignore_errors=True)
                lock_path.unlink(missing_ok=True)
    for folder in parent.glob(f"{prefix}*") if alone else ():
        with contextlib.suppress(OSError):
            unlocked = folder.is_dir() and not folder.with_name(folder.name + _LOCK).exists()
            if unlocked and not folder.is_symlink() and time.time() - folder.stat().st_mtime > _UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def live_file(path: Path) -> Iterator[Path]:
    """Return a path to write beside `path`, held while the block runs; rename it to `path` once the block ends well.

    Leftovers of dead processes beside the same path are removed first.

    Raises:
        OSError: It cannot be written or renamed.
    """
    prefix = f".{path.name}."
    for old in path.parent.glob(f"{glob.escape(prefix)}*.part"):
        with contextlib.suppress(OSError), old.open("r+b") as file:
            if _free(file):
                old.unlink(missing_ok=True)
    aside = path.with_name(f"{prefix}{secrets.token_hex(8)}.part")
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        os.close(descriptor)


def _free(file: IO[str] | IO[bytes]) -> bool:
    """Take the lock of a file whose owner is dead; False where somebody holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
