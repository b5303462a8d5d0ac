"""The program that a device runs for a host: it keeps files in one folder, and starts and watches workers.

Needs the standard library alone. It ends, and takes its workers and its session's folder with it, when the host says
so, when the connection closes, or when nothing was heard of the host for a minute.

~/.cache/deploykit/
├── deploykit-1f0c….pyz       this program
├── files/3f9a0c…/            kept files, under the sha256 of their content
└── sessions/k3x9…/           of one connection; gone with it
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import importlib.util
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deploy_kit.errors import DeployKitError, DeviceError
from deploy_kit.frames import PIECE, Frame, Reader
from deploy_kit.wire import failure

Arguments = dict[str, Any]
SILENCE_S = 60.0
_END_S = 5.0
_WORDS = 600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None)


class Agent:
    """One connection's side on the device."""

    def __init__(self, root: Path, program: Path, send: Callable[[Frame], None]) -> None:
        """Open a session under `root`; `program` is what workers run from, `send` writes a frame to the host."""
        self._root, self._program, self._send = root, program, send
        self._lock: BinaryIO
        self._session = self._open_session()
        self._incoming: _Incoming | None = None
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._operations: dict[str, Callable[[Arguments], Arguments]] = {
            "hello": self.hello,
            "present": self.present,
            "has": self.has,
            "put": self.put,
            "put_end": self.put_end,
            "outbox": self.outbox,
            "start": self.start,
            "end": self.end,
            "kept": self.kept,
            "clean": self.clean,
        }

    def take(self, frame: Frame) -> None:
        """Act on one frame of the host: a piece of a file, a worker's job, or a request that is answered."""
        head = frame.head
        if "piece" in head:
            self._piece(frame.body)
        elif "worker" in head:
            self._tell(int(head["worker"]), frame.body)
        elif "ask" in head:
            self._send(Frame(head={"answer": head["ask"], **self._answered(head)}))
        elif "fetch" in head:
            self._send(Frame(head={"answer": head["fetch"], **self._fetched(head["fetch"], Path(head["folder"]))}))

    def close(self) -> None:
        """End all workers and remove the session's folder."""
        for process in self._workers.values():
            process.kill()
        shutil.rmtree(self._session, ignore_errors=True)
        self._lock.close()

    # What a host may ask.

    def hello(self, arguments: Arguments) -> Arguments:
        """Say who answers, and where the session's files lie."""
        return {"python": platform.python_version(), "pid": os.getpid(), "session": str(self._session)}

    def present(self, arguments: Arguments) -> Arguments:
        """Say whether a package could be imported, without importing it."""
        return {"present": importlib.util.find_spec(arguments["package"]) is not None}

    def has(self, arguments: Arguments) -> Arguments:
        """List which of ``files`` (name → sha256) are kept under ``digest``, whole; a damaged one is removed."""
        folder = self._root / "files" / arguments["digest"]
        whole = []
        for name, sha256 in arguments["files"].items():
            path = folder / name
            if path.is_file() and _sha256_of(path) == sha256:
                whole.append(name)
            else:
                path.unlink(missing_ok=True)
        return {"folder": str(folder), "have": whole}

    def put(self, arguments: Arguments) -> Arguments:
        """Get ready for a file of ``size`` bytes at ``path``; its pieces follow."""
        path, size = Path(arguments["path"]), int(arguments["size"])
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise _full(path, size)
        self._incoming = _Incoming(path, size)
        return {}

    def put_end(self, arguments: Arguments) -> Arguments:
        """Put the file in its place, if it is what ``sha256`` says."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.finish(arguments["sha256"])
        return {}

    def outbox(self, arguments: Arguments) -> Arguments:
        """Make an empty folder for a worker's results."""
        return {"folder": tempfile.mkdtemp(prefix="out-", dir=self._session)}

    def start(self, arguments: Arguments) -> Arguments:
        """Start a worker under the number the host gave it."""
        number = int(arguments["number"])
        paths = [str(self._program), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        words = self._session / f"worker-{number}.txt"
        with words.open("wb") as stderr:
            process = subprocess.Popen(
                (sys.executable, "-m", "deploy_kit.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self._session)}
                | {"CUDA_CACHE_PATH": str(self._root / "cuda")},
                preexec_fn=_die_with_parent,  # one call of libc, loaded before
            )
        self._workers[number] = process
        threading.Thread(target=self._listen, args=(number, process, words), daemon=True).start()
        return {"pid": process.pid}

    def end(self, arguments: Arguments) -> Arguments:
        """End a worker: closed pipe first, then a signal; at once where the host does not wait for its answer."""
        process = self._workers.pop(int(arguments["number"]))
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=0 if arguments["busy"] else _END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return {}

    def kept(self, arguments: Arguments) -> Arguments:
        """Say how much the folder holds, in bytes."""
        return {"folder": str(self._root), "bytes": _size_of(self._root), "free": shutil.disk_usage(self._root).free}

    def clean(self, arguments: Arguments) -> Arguments:
        """Remove the folder with all that is in it; refused while another connection works there."""
        others = [folder for folder in _sessions(self._root) if folder != self._session and _alive(folder)]
        if others:
            raise DeviceError(
                f"{self._root}: {len(others)} other connection is at work there"
                if len(others) == 1
                else f"{self._root}: {len(others)} other connections are at work there",
                hint="wait until it has ended",
            )
        held = _size_of(self._root)
        shutil.rmtree(self._root)
        return {"folder": str(self._root), "bytes": held}

    # How it is done.

    def _answered(self, head: Arguments) -> Arguments:
        try:
            return {"result": self._operations[head["op"]](head["arguments"])}
        except DeployKitError as error:
            return vars(failure(error))
        except OSError as error:
            return vars(failure(DeviceError(f"{error.filename or self._root}: {error.strerror or error}")))

    def _open_session(self) -> Path:
        """Make this connection's folder, and remove those whose connection is dead."""
        sessions = self._root / "sessions"
        sessions.mkdir(parents=True, exist_ok=True)
        with _locked(sessions / ".lock"):
            for folder in _sessions(self._root):
                if not _alive(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            session = Path(tempfile.mkdtemp(prefix="", dir=sessions))
            self._lock = (session / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return session

    def _piece(self, body: bytes) -> None:
        if self._incoming is not None:
            self._incoming.write(body)

    def _tell(self, number: int, line: bytes) -> None:
        process = self._workers.get(number)
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):  # dead: its listener tells the host
                process.stdin.write(line)
                process.stdin.flush()

    def _listen(self, number: int, process: "subprocess.Popen[bytes]", words: Path) -> None:
        """Pass a worker's replies on, and at its end how it ended."""
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError, FileNotFoundError):  # the host, or the session, is gone
            for line in process.stdout:
                if line.endswith(b"\n"):  # else its writer did not live to finish it
                    self._send(Frame(head={"worker": number}, body=line))
            code = process.wait()
            last = words.read_bytes()[-_WORDS:].decode(errors="replace").strip()
            self._send(Frame(head={"worker": number, "ended": code, "words": last}))

    def _fetched(self, number: int, folder: Path) -> Arguments:
        """Send the files of a folder, and remove it."""
        files = {}
        for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            name, digest = str(path.relative_to(folder)), hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
                    self._send(Frame(head={"answer": number, "file": name}, body=piece))
            files[name] = digest.hexdigest()
        shutil.rmtree(folder, ignore_errors=True)
        return {"result": {"files": files}}


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
                self._drop()

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
            self._drop()
            raise
        if self._digest.hexdigest() != sha256:
            self._drop()
            raise DeviceError(
                f"{self._path}: expected sha256 {sha256[:12]}…, {self._digest.hexdigest()[:12]}… arrived",
                hint="send it again",
            )
        self._aside.replace(self._path)

    def _drop(self) -> None:
        self._aside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _full(path: Path, size: int) -> DeviceError:
    free = shutil.disk_usage(path.parent).free
    return DeviceError(
        f"{path}: no space left for {size / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free there",
        hint="free some space on the device, or: deploykit devices clean DEVICE",
    )


def _die_with_parent() -> None:
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


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
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _heard(stream: int, silence_s: float) -> bytes:
    """Read what has come; nothing at the end of the stream, or after too long a silence."""
    ready, _, _ = select.select([stream], [], [], silence_s)
    return os.read(stream, PIECE) if ready else b""


def serve(root: Path, program: Path, silence_s: float = SILENCE_S) -> None:
    """Serve one host on standard input and output until it is gone."""
    out, lock = os.dup(1), threading.Lock()
    os.dup2(2, 1)

    def send(frame: Frame) -> None:
        left = memoryview(frame.packed())
        with lock:
            while left:
                left = left[os.write(out, left) :]

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    agent = Agent(root, program, send)
    try:
        send(Frame(head={"answer": 0, "result": agent.hello({})}))
        reader = Reader(lambda: _heard(0, silence_s))
        while (frame := reader.frame()) is not None:
            agent.take(frame)
    except BrokenPipeError:
        pass  # the host is gone
    finally:
        agent.close()


def main() -> None:
    """Serve from the folder that holds this zip application."""
    program = Path(sys.argv[0]).resolve()
    serve(program.parent, program)


if __name__ == "__main__":
    main()
