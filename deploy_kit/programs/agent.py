"""The program that a device runs for a host: it keeps files in one folder, and starts and watches workers.

Needs the standard library alone. It ends, and takes its workers and its session's folder with it, when the host says
so, when the connection closes, or when nothing was heard of the host for a minute.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeployKitError, DeviceError
from deploy_kit.devices.framing import PIECE_BYTES, Frame, FrameReader
from deploy_kit.devices.protocol import error_reply
from deploy_kit.devices.remote_cache import RemoteCache

Arguments = dict[str, Any]
HOST_SILENCE_S = 60.0
_END_S = 5.0
_WORDS = 600
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None)


class Agent:
    """One connection's side on the device."""

    def __init__(self, root: Path, program: Path, send: Callable[[Frame], None]) -> None:
        """Open a session under `root`; `program` is what workers run from, `send` writes a frame to the host."""
        self._program, self._send = program, send
        self._depot = RemoteCache(root)
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
            "clean": self.clean,
        }

    def take(self, frame: Frame) -> None:
        """Act on one frame of the host: a piece of a file, a worker's job, or a request that is answered."""
        head = frame.head
        if "piece" in head:
            self._depot.append(frame.body)
        elif "worker" in head:
            self._tell(int(head["worker"]), frame.body)
        elif "ask" in head:
            number = int(head["ask"])
            self._answer(number, lambda: self._operations[head["op"]](head["arguments"]))
        elif "fetch" in head:
            number = int(head["fetch"])
            self._answer(number, lambda: self._fetched(number, Path(head["folder"])))

    def close(self) -> None:
        """End all workers and remove the session's folder."""
        for process in self._workers.values():
            process.kill()
        self._depot.close()

    # What a host may ask.

    def hello(self, arguments: Arguments) -> Arguments:
        """Say where the session's files lie."""
        return {"session": str(self._depot.session)}

    def present(self, arguments: Arguments) -> Arguments:
        """Say whether a package could be imported, without importing it."""
        return {"present": importlib.util.find_spec(arguments["package"]) is not None}

    def start(self, arguments: Arguments) -> Arguments:
        """Start a worker under the number the host gave it."""
        number = int(arguments["number"])
        paths = [str(self._program), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        words = self._depot.session / f"worker-{number}.txt"
        with words.open("wb") as stderr:
            process = subprocess.Popen(
                (sys.executable, "-m", "deploy_kit.programs.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self._depot.session)}
                # What an engine's own library keeps (kernels, ONNX Runtime's device id) stays in our folder too.
                | {"CUDA_CACHE_PATH": str(self._depot.root / "cuda")}
                | {"XDG_CACHE_HOME": str(self._depot.root / "cache")},
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

    def has(self, arguments: Arguments) -> Arguments:
        """List which of ``files`` (name → sha256) are kept under ``digest``, and where."""
        digest, files = arguments["digest"], arguments["files"]
        return {"folder": str(self._depot.kept(digest)), "have": self._depot.whole(digest, files)}

    def put(self, arguments: Arguments) -> Arguments:
        """Get ready for a file of ``size`` bytes at ``path``; its pieces follow."""
        self._depot.begin(Path(arguments["path"]), int(arguments["size"]))
        return {}

    def put_end(self, arguments: Arguments) -> Arguments:
        """Put the file in its place, if it is what ``sha256`` says."""
        self._depot.finish(arguments["sha256"])
        return {}

    def outbox(self, arguments: Arguments) -> Arguments:
        """Make an empty folder for a worker's results."""
        return {"folder": str(self._depot.outbox())}

    def clean(self, arguments: Arguments) -> Arguments:
        """Remove everything that is kept."""
        return {"folder": str(self._depot.root), "bytes": self._depot.clean()}

    # How it is done.

    def _answer(self, number: int, work: Callable[[], Arguments]) -> None:
        """Do what was asked, and send its result or its error."""
        try:
            said: Arguments = {"result": work()}
        except DeployKitError as error:
            said = vars(error_reply(error))
        except BrokenPipeError:
            raise  # the host is gone: nobody hears an answer
        except OSError as error:
            said = vars(error_reply(DeviceError(f"{error.filename or self._depot.root}: {error.strerror or error}")))
        self._send(Frame(head={"answer": number, **said}))

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
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                    self._send(Frame(head={"answer": number, "file": name}, body=piece))
            files[name] = digest.hexdigest()
        shutil.rmtree(folder, ignore_errors=True)
        return {"files": files}


def _die_with_parent() -> None:
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _heard(stream: int, silence_s: float) -> bytes:
    """Read what has come; nothing at the end of the stream, or after too long a silence."""
    ready, _, _ = select.select([stream], [], [], silence_s)
    return os.read(stream, PIECE_BYTES) if ready else b""


def serve(root: Path, program: Path, silence_s: float = HOST_SILENCE_S) -> None:
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
        reader = FrameReader(lambda: _heard(0, silence_s))
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
