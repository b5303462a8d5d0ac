"""The one folder that a device keeps for its hosts: sessions, kept files, and files on their way in.

Needs the standard library alone.

~/.cache/deploykit/
├── deploykit-1f0c….pyz       the program
├── cache/  cuda/             what an engine's library keeps
├── files/3f9a0c…/            kept files, under the sha256 of their content
└── sessions/k3x9…/           of one connection; gone with it
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices.framing import PIECE_BYTES

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RemoteCache:
    """The folder, and one connection's session in it.

    Attributes:
        root: The folder.
        session: The session's own; gone once it is closed.
    """

    def __init__(self, root: Path) -> None:
        """Open a session, and remove what dead ones left."""
        self.root = root
        self._lock: BinaryIO
        self.session = self._open_session()
        self._incoming: _Incoming | None = None

    def close(self) -> None:
        """Remove the session's folder, and a file that has not come whole."""
        if self._incoming is not None:
            self._incoming.drop()
        shutil.rmtree(self.session, ignore_errors=True)
        self._lock.close()

    def whole(self, digest: str, files: dict[str, str]) -> list[str]:
        """List which files (name → sha256) are kept under `digest`, whole; a damaged one is removed."""
        found = []
        for name, sha256 in files.items():
            path = self.kept(digest) / name
            if path.is_file() and _sha256_of(path) == sha256:
                found.append(name)
            else:
                path.unlink(missing_ok=True)
        return found

    def kept(self, digest: str) -> Path:
        """Give the folder of what is kept under a hash."""
        return self.root / "files" / digest

    def begin(self, path: Path, size: int) -> None:
        """Get ready for a file of `size` bytes.

        Raises:
            DeviceError: The disk has not so much left.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(path.parent).free:
            raise _full(path, size)
        self._incoming = _Incoming(path, size)

    def append(self, piece: bytes) -> None:
        """Take a piece of the file that was begun; one that was refused is passed over."""
        if self._incoming is not None:
            self._incoming.write(piece)

    def finish(self, sha256: str) -> None:
        """Put the file that was begun in its place, if it is what its hash says.

        Raises:
            DeviceError: The disk is full, or something else arrived than was sent.
        """
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.finish(sha256)

    def outbox(self) -> Path:
        """Make an empty folder for a worker's results."""
        return Path(tempfile.mkdtemp(prefix="out-", dir=self.session))

    def clean(self) -> int:
        """Remove the folder with all that is in it, and give the bytes it held.

        Raises:
            DeviceError: Another connection is at work there.
        """
        others = [folder for folder in _sessions(self.root) if folder != self.session and _alive(folder)]
        if others:
            raise DeviceError(
                f"{self.root}: other connections are at work there ({len(others)})", hint="wait until they have ended"
            )
        held = sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file())
        shutil.rmtree(self.root)
        return held

    def _open_session(self) -> Path:
        """Make this connection's folder, and remove what dead ones left."""
        sessions = self.root / "sessions"
        sessions.mkdir(parents=True, exist_ok=True)
        with _locked(sessions / ".lock"):
            for folder in _sessions(self.root):
                if not _alive(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            for aside in [*self.root.glob(".*.*"), *self.root.glob("files/*/.*.*")]:
                owner = aside.name.rpartition(".")[2]
                if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                    aside.unlink(missing_ok=True)
            session = Path(tempfile.mkdtemp(prefix="", dir=sessions))
            self._lock = (session / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return session


class _Incoming:
    """A file on its way in: written aside, then renamed."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._free = path, size, 0
        self._aside = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = self._aside.open("wb")
        self._digest = hashlib.sha256()
        self._failed: OSError | None = None

    def write(self, piece: bytes) -> None:
        """Append a piece; after a failure nothing more is written, and `finish` tells."""
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
        """Put it in place.

        Raises:
            DeviceError: The disk is full, or something else arrived than was sent.
            OSError: It could not be written for another reason.
        """
        if self._failed is not None:
            if self._failed.errno in _FULL:
                raise _full(self._path, self._size) from self._failed
            raise self._failed
        try:
            os.fsync(self._file.fileno())
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
        """Remove what has come so far."""
        self._aside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _full(path: Path, size: int) -> DeviceError:
    free = shutil.disk_usage(path.parent).free
    return DeviceError(
        f"{path}: no space left for {size / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free there",
        hint="free some space there",
    )


def _sessions(root: Path) -> list[Path]:
    return [folder for folder in (root / "sessions").iterdir() if folder.is_dir()]


def _alive(session: Path) -> bool:
    """Say whether the connection of a session's folder still holds its lock."""
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
