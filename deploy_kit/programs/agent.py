"""The agent: the program that a device runs for a host. It keeps files in one folder, and starts and watches workers.

Needs the standard library alone. It ends, with its workers and its session's folder, when the host closes its side,
when the connection ends, or when nothing has come from the host for a minute.
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

from deploy_kit.base import lazy
from deploy_kit.base.errors import DeployKitError, DeviceError
from deploy_kit.devices.framing import PIECE_BYTES, Frame, FrameReader
from deploy_kit.devices.patience import life_of
from deploy_kit.devices.protocol import error_reply
from deploy_kit.devices.remote_cache import RemoteCache
from deploy_kit.machine import environment
from deploy_kit.records import codec

Arguments = dict[str, Any]
HOST_SILENCE_S = 60.0  # the host sends a heartbeat every 5 s
_END_S = 5.0
_STDERR_BYTES = 600  # of a worker's standard error that an error quotes
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None)


class Agent:
    """The device's end of one connection."""

    def __init__(self, root: Path, program: Path, send: Callable[[Frame], None]) -> None:
        """Open a session.

        Args:
            root: Folder of deploykit on the device.
            program: Zip application that workers are run from.
            send: Sends a frame to the host.
        """
        self._program, self._send = program, send
        self._cache = RemoteCache(root)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._operations: dict[str, Callable[[Arguments], Arguments]] = {
            "hello": self.hello,
            "present": self.present,
            "environment": self.environment,
            "has": self.has,
            "put": self.put,
            "put_end": self.put_end,
            "outbox": self.outbox,
            "start": self.start,
            "life": self.life,
            "end": self.end,
            "clean": self.clean,
        }

    def handle(self, frame: Frame) -> None:
        """Handle one frame of the host: a piece of a file, a worker's job, or a request that needs an answer.

        An empty frame is a heartbeat and needs nothing.
        """
        head = frame.head
        if "piece" in head:
            self._cache.append_piece(frame.body)
        elif "worker" in head:
            self._forward_job(int(head["worker"]), frame.body)
        elif "ask" in head:
            number = int(head["ask"])
            self._respond(number, lambda: self._operations[head["op"]](head["arguments"]))
        elif "fetch" in head:
            number = int(head["fetch"])
            self._respond(number, lambda: self._send_folder(number, Path(head["folder"])))

    def close(self) -> None:
        """End all workers and remove the session's folder."""
        for process in self._workers.values():
            process.kill()
        self._cache.close()

    # Operations that a host may request.

    def hello(self, arguments: Arguments) -> Arguments:
        """Return the folder of the session."""
        return {"session": str(self._cache.session)}

    def present(self, arguments: Arguments) -> Arguments:
        """Return whether a package can be imported, without importing it."""
        found = importlib.util.find_spec(arguments["package"]) is not None
        return {"present": found, "managed": lazy.externally_managed()}

    def environment(self, arguments: Arguments) -> Arguments:
        """Describe this machine, with the standard library alone."""
        return {"environment": codec.to_json(environment.describe_machine())}

    def start(self, arguments: Arguments) -> Arguments:
        """Start a worker under the number that the host gave it."""
        number = int(arguments["number"])
        paths = [str(self._program), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        log = self._cache.session / f"worker-{number}.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                (sys.executable, "-m", "deploy_kit.programs.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self._cache.session)}
                # Caches of an engine's library (kernels, ONNX Runtime's device id) stay in deploykit's folder too.
                | {"CUDA_CACHE_PATH": str(self._cache.root / "cuda")}
                | {"XDG_CACHE_HOME": str(self._cache.root / "cache")},
                preexec_fn=_die_with_parent,  # safe between fork and exec: one call of a library that is loaded
            )
        self._workers[number] = process
        threading.Thread(target=self._forward_replies, args=(number, process, log), daemon=True).start()
        return {"pid": process.pid}

    def life(self, arguments: Arguments) -> Arguments:
        """Look at a worker from outside: whether it is stopped, and its processor time; None where nothing is seen."""
        process = self._workers.get(int(arguments["number"]))
        seen = life_of(process.pid) if process is not None else None
        return {"life": None if seen is None else vars(seen)}

    def end(self, arguments: Arguments) -> Arguments:
        """End a worker: close its pipe, then kill it; at once where its job is unfinished and no longer needed."""
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
        return {"folder": str(self._cache.folder_of(digest)), "have": self._cache.intact_files(digest, files)}

    def put(self, arguments: Arguments) -> Arguments:
        """Prepare to receive a file of ``size`` bytes at ``path``; its pieces follow."""
        self._cache.begin_file(Path(arguments["path"]), int(arguments["size"]))
        return {}

    def put_end(self, arguments: Arguments) -> Arguments:
        """Return the received file its name, if it has the sha256 ``sha256``."""
        self._cache.finish_file(arguments["sha256"])
        return {}

    def outbox(self, arguments: Arguments) -> Arguments:
        """Create an empty folder for a worker's results."""
        return {"folder": str(self._cache.outbox())}

    def clean(self, arguments: Arguments) -> Arguments:
        """Remove everything that is kept on the device."""
        return {"folder": str(self._cache.root), "bytes": self._cache.clean()}

    # Frames to and from host and workers.

    def _respond(self, number: int, work: Callable[[], Arguments]) -> None:
        """Carry out a request, and send its result or its error."""
        try:
            answer: Arguments = {"result": work()}
        except DeployKitError as error:
            answer = vars(error_reply(error))
        except BrokenPipeError:
            raise  # the host is gone, and nobody reads an answer
        except OSError as error:
            answer = vars(error_reply(DeviceError(f"{error.filename or self._cache.root}: {error.strerror or error}")))
        self._send(Frame(head={"answer": number, **answer}))

    def _forward_job(self, number: int, line: bytes) -> None:
        process = self._workers.get(number)
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, which its thread reports
                process.stdin.write(line)
                process.stdin.flush()

    def _forward_replies(self, number: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Forward a worker's replies to the host, and report how it ended."""
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError, FileNotFoundError):  # the host, or the session, is gone
            for line in process.stdout:
                if line.endswith(b"\n"):  # otherwise the worker ended within the line
                    self._send(Frame(head={"worker": number}, body=line))
            code = process.wait()
            stderr = log.read_bytes()[-_STDERR_BYTES:].decode(errors="replace").strip()
            self._send(Frame(head={"worker": number, "ended": code, "stderr": stderr}))

    def _send_folder(self, number: int, folder: Path) -> Arguments:
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
    """Have the kernel kill this process when its parent dies: an agent that is killed cannot end its workers."""
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _receive(stream: int, silence_s: float) -> bytes:
    """Read the bytes that have come; none at the end of the stream, or where nothing comes for `silence_s` seconds."""
    ready, _, _ = select.select([stream], [], [], silence_s)
    return os.read(stream, PIECE_BYTES) if ready else b""


def serve_host(root: Path, program: Path, silence_s: float = HOST_SILENCE_S) -> None:
    """Serve one host on standard input and output until it is gone.

    Args:
        root: Folder of deploykit on the device.
        program: Zip application that workers are run from.
        silence_s: Seconds without a frame after which the host counts as gone.
    """
    out, lock = os.dup(1), threading.Lock()
    os.dup2(2, 1)  # whatever else prints to standard output must not get between frames

    def send(frame: Frame) -> None:
        left = memoryview(frame.to_bytes())
        with lock:  # several threads send, each a frame at a time
            while left:
                left = left[os.write(out, left) :]  # a pipe may take a part of a frame

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    agent = Agent(root, program, send)
    try:
        send(Frame(head={"answer": 0, "result": agent.hello({})}))
        reader = FrameReader(lambda: _receive(0, silence_s))
        while (frame := reader.read_frame()) is not None:
            agent.handle(frame)
    except BrokenPipeError:
        pass  # the host is gone
    finally:
        agent.close()


def main() -> None:
    """Serve from the folder that contains this zip application."""
    program = Path(sys.argv[0]).resolve()
    serve_host(program.parent, program)


if __name__ == "__main__":
    main()
