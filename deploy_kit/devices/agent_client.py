"""The host's end of an agent: requests and answers, and the lines of its workers, over any stream of bytes."""

import contextlib
import hashlib
import itertools
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from deploy_kit.base.errors import DeviceError, LinkLostError, MissingPackageError, StoreError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.devices.framing import PIECE_BYTES, Frame, FrameReader
from deploy_kit.devices.isolate import crash_error
from deploy_kit.devices.protocol import Job, Reply, await_reply, job_line
from deploy_kit.records.artifacts import Device


class Stream(Protocol):
    """Bytes to the agent."""

    def sendall(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: The connection is gone.
        """


class AgentClient:
    """A conversation with an agent."""

    def __init__(self, stream: Stream, reader: FrameReader, device: Device) -> None:
        """Speak through `stream`, and listen to `reader` from now on."""
        self.device = device
        self._stream, self._reader = stream, reader
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._boxes: dict[tuple[str, int], queue.SimpleQueue[Frame | None]] = {("answer", 0): queue.SimpleQueue()}
        self._lost = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def hello(self) -> dict[str, Any]:
        """Wait for the agent's first words: its Python, its process and its session's folder."""
        return self._answer(0)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request to the agent and wait for its answer.

        Raises:
            LinkLostError: The connection ended first.
            DeployKitError: The agent answered with an error.
        """
        number = next(self._numbers)
        self._open("answer", number)
        self.send(Frame(head={"ask": number, "op": op, "arguments": arguments}))
        return self._answer(number)

    def put(self, file: Path, path: str) -> None:
        """Send a file to `path` of the device.

        Raises:
            DeviceError: No space there, or it arrived damaged.
        """
        try:
            self.ask("put", path=path, size=file.stat().st_size)
            sent = hashlib.sha256()
            with file.open("rb") as opened:
                while piece := opened.read(PIECE_BYTES):
                    sent.update(piece)
                    self.send(Frame(head={"piece": True}, body=piece))
            self.ask("put_end", sha256=sent.hexdigest())
        except LinkLostError:
            raise
        except DeviceError as error:
            hint = f"{error.hint}, or: deploykit devices clean {self.device.name}"
            raise DeviceError(f"device '{self.device.name}': {error}", hint=hint) from error

    def fetch(self, folder: str, into: Path) -> None:
        """Move all files of a folder of the device into a folder here; each appears once it is whole.

        Raises:
            DeviceError: A file arrived damaged.
            LinkLostError: The connection ended first; nothing of an unfinished file is left.
        """
        number = next(self._numbers)
        self._open("answer", number)
        self.send(Frame(head={"fetch": number, "folder": folder}))
        with _Arrivals(into) as arrivals:
            while "file" in (frame := self.next("answer", number)).head:
                arrivals.write(frame.head["file"], frame.body)
            arrivals.finish(_unwrapped(frame)["files"])

    def worker(self) -> "RemoteWorker":
        """Start a worker process."""
        number = next(self._numbers)
        self._open("worker", number)
        return RemoteWorker(self, number, pid=int(self.ask("start", number=number)["pid"]))

    def wait(self, limit_s: float) -> None:
        """Wait until the agent has closed its side."""
        self._listener.join(limit_s)

    def beat(self) -> None:
        """Let the agent hear of us, unless it is hearing already."""
        if self._sending.acquire(blocking=False):
            try:
                self._stream.sendall(Frame(head={}).packed())
            except OSError:
                pass  # whoever waits for an answer hears of it
            finally:
                self._sending.release()

    def send(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            LinkLostError: The connection has ended.
        """
        try:
            with self._sending:
                self._stream.sendall(frame.packed())
        except OSError as error:
            raise self.lost() from error

    def next(self, kind: str, number: int) -> Frame:
        """Wait for the next frame for a request or a worker.

        Raises:
            LinkLostError: The connection ended first.
        """
        box = self._boxes[kind, number]
        frame = None if self._lost and box.empty() else box.get()
        if frame is None:
            raise self.lost()
        return frame

    def lost(self) -> LinkLostError:
        """Give the error for a connection that ended."""
        return LinkLostError(
            f"device '{self.device.name}': the connection was lost",
            hint="see that it is on and in the network, and run the same line again: what was finished is kept",
        )

    def _open(self, kind: str, number: int) -> None:
        self._boxes[kind, number] = queue.SimpleQueue()

    def _answer(self, number: int) -> dict[str, Any]:
        try:
            return _unwrapped(self.next("answer", number))
        finally:
            self._boxes.pop(("answer", number), None)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := self._reader.frame()) is not None:
                kind = "worker" if "worker" in frame.head else "answer"
                box = self._boxes.get((kind, int(frame.head[kind])))
                if box is not None:  # else nobody waits for it any more
                    box.put(frame)
        self._lost = True
        for box in list(self._boxes.values()):
            box.put(None)


class RemoteWorker:
    """A worker process on a device, as `devices.Worker` promises it."""

    def __init__(self, talk: AgentClient, number: int, pid: int) -> None:
        """Take what the agent has started."""
        self.pid = pid
        self._talk, self._number = talk, number
        self._busy = False
        self._ended: dict[str, Any] | None = None

    def __enter__(self) -> "RemoteWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(LinkLostError):  # the agent ends it for itself, and what was answered counts
            self._talk.ask("end", number=self._number, busy=self._busy)

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Raises:
            EngineCrashError: The process died.
            LinkLostError: The connection was lost.
            DeviceError: A package is missing there, or the disk is full.
            DeployKitError: The worker answered with another error.
        """
        if self._ended is None:
            self._busy = True
            self._talk.send(
                Frame(head={"worker": self._number}, body=job_line(Job(op=op, arguments=arguments)).encode())
            )
            reply = await_reply(self._line, on_progress)
            self._busy = False
            if reply is not None:
                return self._unwrapped(reply)
        assert self._ended is not None
        raise crash_error(about, op, int(self._ended["ended"]), self._ended["words"])

    def _line(self) -> str:
        """Give the next line of the process; an empty text once it has ended."""
        frame = self._talk.next("worker", self._number)
        if "ended" in frame.head:
            self._ended = frame.head
        return frame.body.decode()

    def _unwrapped(self, reply: Reply) -> dict[str, Any]:
        device = self._talk.device
        try:
            return reply.unwrap()
        except MissingPackageError as error:
            hint = error.hint.replace("pip", f"{device.python} -m pip", 1)
            said = str(error).replace("not installed here", "not installed there")
            raise DeviceError(f"device '{device.name}': {said}", hint=f"on {device.name}: {hint}") from error
        except StoreError as error:
            hint = f"free some space there, or: deploykit devices clean {device.name}"
            raise DeviceError(f"device '{device.name}': {error}", hint=hint) from error


class _Arrivals:
    """Files on their way into a folder: written aside, verified, then renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, Any] = {}

    def __enter__(self) -> "_Arrivals":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in self._digests:
            self._aside(name).unlink(missing_ok=True)

    def write(self, name: str, piece: bytes) -> None:
        """Append a piece to a file."""
        begun = name in self._digests
        self._digests.setdefault(name, hashlib.sha256()).update(piece)
        with self._aside(name).open("ab" if begun else "wb") as file:
            file.write(piece)

    def finish(self, files: dict[str, str]) -> None:
        """Put all files in their places, once each is what the device says it sent.

        Raises:
            DeviceError: One is not.
        """
        for name, sha256 in files.items():
            if name not in self._digests:
                self.write(name, b"")  # an empty file has no pieces
            if self._digests[name].hexdigest() != sha256:
                raise DeviceError(f"{name}: arrived damaged from the device", hint="run it again")
        for name in files:
            self._aside(name).replace(self._folder / name)

    def _aside(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise DeviceError(f"the device sent a file of the name '{name}', which is none")
        return self._folder / f".{name}.arriving"


def _unwrapped(frame: Frame) -> dict[str, Any]:
    """Give the result of an answer, or raise its error."""
    return Reply(**{key: value for key, value in frame.head.items() if key != "answer"}).unwrap()
