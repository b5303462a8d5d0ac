"""The folder of deploykit on a device: sessions, kept files, and files that are being received.

Needs the standard library alone.

~/.cache/deploykit/
├── deploykit-1f0c….pyz       the program
├── cache/  cuda/             caches of the engines' libraries
├── files/3f9a0c…/            kept files, under the sha256 of their content
└── sessions/k3x9…/           files of one connection, removed with it
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices.framing import PIECE_BYTES

_PART, _UNLOCKED_S = ".part", 3600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class RemoteCache:
    """The folder, and one connection's session in it.

    Attributes:
        root: Path of the folder.
        session: Folder of the session; it is removed when the session is closed.
    """

    def __init__(self, root: Path) -> None:
        """Open a session, and remove what sessions without a process have left."""
        self.root = root
        self._lock: BinaryIO
        self.session = self._open_session()
        self._incoming: _Incoming | None = None

    def close(self) -> None:
        """Remove the session's folder, and a file that has not arrived completely."""
        if self._incoming is not None:
            self._incoming.drop()
        shutil.rmtree(self.session, ignore_errors=True)
        self._lock.close()

    def intact_files(self, digest: str, files: dict[str, str]) -> list[str]:
        """List the files that are kept under `digest` and intact; damaged ones are removed.

        Args:
            digest: Hash of the artifact that the files belong to.
            files: Name of each file → its sha256.
        """
        intact = []
        for name, sha256 in files.items():
            path = self.folder_of(digest) / name
            # Hashed each time, because the file may have been damaged since it was received.
            if path.is_file() and _sha256_of(path) == sha256:
                intact.append(name)
            else:
                path.unlink(missing_ok=True)
        return intact

    def folder_of(self, digest: str) -> Path:
        """Return the folder of the files that are kept under a hash."""
        return self.root / "files" / digest

    def begin_file(self, path: Path, size: int) -> None:
        """Prepare to receive a file of `size` bytes.

        Raises:
            DeviceError: The disk has too little space left.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Before anything is sent; a quota or another writer may still fill the disk, which `_Incoming.write` notices.
        if size > shutil.disk_usage(path.parent).free:
            raise _full(path, size)
        self._incoming = _Incoming(path, size)

    def append_piece(self, piece: bytes) -> None:
        """Append a piece to the file that is being received; without one the piece is ignored.

        The host sends pieces without waiting for answers, so those of a file that was refused still come.
        """
        if self._incoming is not None:
            self._incoming.write(piece)

    def finish_file(self, sha256: str) -> None:
        """Return the received file its name, if it has the expected sha256.

        Raises:
            DeviceError: The disk is full, or the file has another sha256.
        """
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.finish(sha256)

    def outbox(self) -> Path:
        """Create an empty folder for a worker's results."""
        return Path(tempfile.mkdtemp(prefix="out-", dir=self.session))

    def clean(self) -> int:
        """Remove the folder with everything in it, and return the size of its files in bytes.

        Raises:
            DeviceError: Other connections use it.
        """
        # Its own session is skipped: the lock that it holds would make it look like another connection.
        others = [folder for folder in _sessions(self.root) if folder != self.session and _alive(folder)]
        if others:
            raise DeviceError(
                f"{self.root}: other connections are at work there ({len(others)})", hint="wait until they have ended"
            )
        n_bytes = sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file())
        shutil.rmtree(self.root)
        return n_bytes

    def _open_session(self) -> Path:
        """Create this connection's folder, and remove what sessions without a process have left.

        A session is alive as long as its process holds a lock on a file in it. The kernel releases the lock however the
        process ends, and does not mistake a new process of the same number for it, as a noted process id would.
        """
        sessions = self.root / "sessions"
        sessions.mkdir(parents=True, exist_ok=True)
        # Without this lock another agent could remove a folder between its creation and the lock within it.
        with _locked(sessions / ".lock"):
            for folder in _sessions(self.root):
                if not _alive(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            for aside in [*self.root.glob(".*.*"), *self.root.glob("files/*/.*.*")]:
                _remove_leftover(aside)
            session = Path(tempfile.mkdtemp(prefix="", dir=sessions))
            self._lock = (session / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return session


class _Incoming:
    """A file that is being received: written under a temporary name, then renamed."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._free = path, size, 0
        self._aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")
        self._file = self._aside.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as this process lives, however it ends
        self._digest = hashlib.sha256()
        self._failed: OSError | None = None

    def write(self, piece: bytes) -> None:
        """Append a piece; after a failure nothing more is written, and `finish` raises the error."""
        if self._failed is None:
            try:
                self._file.write(piece)
                self._file.flush()
                self._digest.update(piece)
            except OSError as error:
                self._failed = error
                self._free = shutil.disk_usage(self._path.parent).free
                self.drop()

    def finish(self, sha256: str) -> None:
        """Return the file its name.

        Raises:
            DeviceError: The disk is full, or the file has another sha256.
            OSError: It could not be written for another reason.
        """
        if self._failed is not None:
            if self._failed.errno in _FULL:
                raise _full(self._path, self._size) from self._failed
            raise self._failed
        try:
            os.fsync(self._file.fileno())  # before the rename: a device that loses power must not keep half a file
            self._file.close()
        except OSError:
            self.drop()
            raise
        if self._digest.hexdigest() != sha256:
            self.drop()
            raise DeviceError(
                f"{self._path}: expected sha256 {sha256[:12]}…, {self._digest.hexdigest()[:12]}… arrived",
                hint="send it again",
            )
        self._aside.replace(self._path)

    def drop(self) -> None:
        """Remove what has been received so far."""
        self._aside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _remove_leftover(aside: Path) -> None:
    """Remove a file that arrived in part and whose receiver is dead: nobody holds its lock.

    The program is sent by a shell, which holds no lock: what no one has written to for an hour is left over.
    """
    with contextlib.suppress(OSError), aside.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if aside.name.endswith(_PART) or time.time() - os.fstat(file.fileno()).st_mtime > _UNLOCKED_S:
            aside.unlink(missing_ok=True)


def _full(path: Path, size: int) -> DeviceError:
    free = shutil.disk_usage(path.parent).free
    return DeviceError(
        f"{path}: no space left for {size / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free there",
        hint="free some space there",
    )


def _sessions(root: Path) -> list[Path]:
    return [folder for folder in (root / "sessions").iterdir() if folder.is_dir()]


def _alive(session: Path) -> bool:
    """Return whether the process of a session still holds its lock."""
    try:
        with (session / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
