"""The host's end of the connection to an agent: requests and answers, and the lines of its workers.

All of them share one stream of bytes. A thread reads the frames and sorts them into inboxes, one for each open request
and each worker, so that any number of threads can wait for their own.
"""

import contextlib
import hashlib
import itertools
import queue
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from deploy_kit.base.errors import DeviceError, LinkLostError, MissingPackageError, StoreError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.devices.framing import PIECE_BYTES, Frame, FrameReader
from deploy_kit.devices.isolate import crash_error
from deploy_kit.devices.patience import Life, Watch
from deploy_kit.devices.protocol import Job, Reply, await_reply, job_line
from deploy_kit.records.artifacts import Device

_ANSWER_S = 600.0  # for a request to the agent; the longest is the hash of a large file on a slow disk
_LOOK_S = 5.0  # between two looks at a worker, each of which is a request over the network


class Stream(Protocol):
    """Stream of bytes to the agent."""

    def sendall(self, data: bytes) -> None:
        """Send all bytes.

        Raises:
            OSError: The connection has ended.
        """


class AgentClient:
    """Connection to an agent."""

    def __init__(self, stream: Stream, reader: FrameReader, device: Device) -> None:
        """Start receiving frames.

        Args:
            stream: Stream of bytes to the agent.
            reader: Reader of the frames that the agent sends.
            device: Device that the agent runs on.
        """
        self.device = device
        self._stream, self._reader = stream, reader
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._inboxes: dict[tuple[str, int], queue.SimpleQueue[Frame | None]] = {("answer", 0): queue.SimpleQueue()}
        self._lost = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def hello(self) -> dict[str, Any]:
        """Wait for the agent's greeting, which it sends without a request; it names the session's folder."""
        return self._await_answer(0)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request to the agent and wait for its answer.

        Args:
            op: Name of the agent's operation.
            **arguments: Arguments of the operation, as JSON can hold them.

        Raises:
            LinkLostError: The connection ended before the answer came.
            DeployKitError: The agent answered with an error.
        """
        number = next(self._numbers)
        self._open_inbox("answer", number)
        self.send(Frame(head={"ask": number, "op": op, "arguments": arguments}))
        return self._await_answer(number)

    def put(self, file: Path, path: str) -> None:
        """Send a file to the device.

        Args:
            file: File of the host.
            path: Path on the device.

        Raises:
            DeviceError: The device has no space for it, or it arrived damaged.
            LinkLostError: The connection ended first.
        """
        try:
            self.ask("put", path=path, size=file.stat().st_size)
            digest = hashlib.sha256()
            with file.open("rb") as opened:
                while piece := opened.read(PIECE_BYTES):
                    digest.update(piece)
                    self.send(Frame(head={"piece": True}, body=piece))
            self.ask("put_end", sha256=digest.hexdigest())
        except LinkLostError:
            raise
        except DeviceError as error:
            more = f"deploykit devices clean {self.device.name}"
            look = "see what is limited or forbidden there: ulimit -f; ls -ld ~/.cache"
            hint = f"{error.hint}, or: {more}" if error.hint else look
            raise DeviceError(f"device '{self.device.name}': {error}", hint=hint) from error

    def fetch(self, folder: str, into: Path) -> None:
        """Move all files of a folder on the device into a folder of the host.

        A file appears under its name only once it is complete and verified.

        Raises:
            DeviceError: A file arrived damaged.
            LinkLostError: The connection ended first; nothing of an unfinished file is left.
        """
        number = next(self._numbers)
        self._open_inbox("answer", number)
        self.send(Frame(head={"fetch": number, "folder": folder}))
        with _IncomingFiles(into) as incoming:
            while "file" in (frame := self.answer(number)).head:
                incoming.write(frame.head["file"], frame.body)
            incoming.finish(_result_of(frame)["files"])

    def worker(self) -> "RemoteWorker":
        """Start a worker process on the device."""
        number = next(self._numbers)
        self._open_inbox("worker", number)  # before the request: the end of a worker that dies at once may come first
        return RemoteWorker(self, number, pid=int(self.ask("start", number=number)["pid"]))

    def wait(self, limit_s: float) -> None:
        """Wait until the agent has closed its side, for at most `limit_s` seconds."""
        self._listener.join(limit_s)

    def send_heartbeat(self) -> None:
        """Send an empty frame, by which the agent knows that the host lives; nothing if another frame is being sent."""
        if self._sending.acquire(blocking=False):
            try:
                self._stream.sendall(Frame(head={}).to_bytes())
            except OSError:
                pass  # the thread that waits for an answer raises the error
            finally:
                self._sending.release()

    def send(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            LinkLostError: The connection has ended.
        """
        try:
            with self._sending:
                self._stream.sendall(frame.to_bytes())
        except OSError as error:
            raise self.lost_error() from error

    def next_frame(self, kind: str, number: int, limit_s: float) -> Frame | None:
        """Wait for the next frame for a request or a worker.

        Args:
            kind: ``answer`` for a request, ``worker`` for a worker.
            number: Number of the request or worker.
            limit_s: Seconds to wait at most.

        Returns:
            The frame; None where none came in time.

        Raises:
            LinkLostError: The connection ended first.
        """
        inbox = self._inboxes[kind, number]
        # What came before the connection ended is still delivered: an answer that arrived counts.
        try:
            frame = None if self._lost and inbox.empty() else inbox.get(timeout=limit_s)
        except queue.Empty:
            return None
        if frame is None:
            raise self.lost_error()
        return frame

    def answer(self, number: int) -> Frame:
        """Wait for the next frame that answers a request.

        Raises:
            LinkLostError: The connection ended first.
            DeviceError: The agent does not answer, though the connection holds.
        """
        frame = self.next_frame("answer", number, _ANSWER_S)
        if frame is None:
            raise DeviceError(
                f"device '{self.device.name}': deploykit's agent there has not answered for {_ANSWER_S:g} s",
                hint=f"on {self.device.name}: does a disk hang, or is the agent stopped? ps aux | grep deploykit",
            )
        return frame

    def lost_error(self) -> LinkLostError:
        """Return the error for a connection that has ended."""
        return LinkLostError(
            f"device '{self.device.name}': the connection was lost",
            hint="see that it is on and in the network, and run the same line again: what was finished is kept",
        )

    def _open_inbox(self, kind: str, number: int) -> None:
        self._inboxes[kind, number] = queue.SimpleQueue()

    def _await_answer(self, number: int) -> dict[str, Any]:
        try:
            return _result_of(self.answer(number))
        finally:
            self._inboxes.pop(("answer", number), None)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := self._reader.read_frame()) is not None:
                kind = "worker" if "worker" in frame.head else "answer"
                inbox = self._inboxes.get((kind, int(frame.head[kind])))
                if inbox is not None:  # otherwise nobody waits for it any more
                    inbox.put(frame)
        # In this order: whoever opens an inbox from now on sees the flag, whoever waits already gets the None.
        self._lost = True
        for inbox in list(self._inboxes.values()):
            inbox.put(None)


class RemoteWorker:
    """A worker process on a device, as the protocol `links.Worker` describes it."""

    def __init__(self, client: AgentClient, number: int, pid: int) -> None:
        """Wrap a worker that the agent has started.

        Args:
            client: Connection to the agent.
            number: Number of the worker on this connection.
            pid: Process id of the worker on the device.
        """
        self.pid = pid
        self._client, self._number = client, number
        self._busy = False
        self._ended: dict[str, Any] | None = None

    def __enter__(self) -> "RemoteWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(LinkLostError):  # without a connection the agent ends the worker by itself
            self._client.ask("end", number=self._number, busy=self._busy)

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Raises:
            EngineCrashError: The process died.
            LinkLostError: The connection was lost.
            DeviceError: A package is missing on the device, or its disk is full.
            DeployKitError: The worker answered with another error.
        """
        if self._ended is None:
            self._busy = True  # stays True where an error leaves the job unfinished: the agent then ends it at once
            self._client.send(
                Frame(head={"worker": self._number}, body=job_line(Job(op=op, arguments=arguments)).encode())
            )
            watch = Watch(op, about, self._life, on_progress, at=self._client.device.name, look_s=_LOOK_S)
            reply = await_reply(partial(watch.next_line, self._read_line), on_progress)
            self._busy = False
            if reply is not None:
                return self._unwrap(reply)
        assert self._ended is not None
        raise crash_error(about, op, int(self._ended["ended"]), self._ended["stderr"])

    def _life(self) -> Life | None:
        seen = self._client.ask("life", number=self._number)["life"]
        return None if seen is None else Life(stopped=bool(seen["stopped"]), cpu_s=float(seen["cpu_s"]))

    def _read_line(self, limit_s: float) -> str | None:
        """Return the next line of the process, empty once it has ended; None where none comes in time."""
        frame = self._client.next_frame("worker", self._number, limit_s)
        if frame is None:
            return None
        if "ended" in frame.head:
            self._ended = frame.head
        return frame.body.decode()

    def _unwrap(self, reply: Reply) -> dict[str, Any]:
        """Return the result of a reply, or raise its error as the host must read it: with the device's name."""
        device = self._client.device
        try:
            return reply.unwrap()
        except MissingPackageError as error:
            hint = error.hint.replace("pip", f"{device.python_word} -m pip", 1)
            message = str(error).replace("not installed here", "not installed there")
            raise DeviceError(f"device '{device.name}': {message}", hint=f"on {device.name}: {hint}") from error
        except StoreError as error:
            hint = f"free some space there, or: deploykit devices clean {device.name}"
            raise DeviceError(f"device '{device.name}': {error}", hint=hint) from error


class _IncomingFiles:
    """Files that arrive in a folder: written under another name, verified, then renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, Any] = {}

    def __enter__(self) -> "_IncomingFiles":
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
        """Return all files their names, once each has the sha256 that the device sent.

        Raises:
            DeviceError: A file has another sha256.
        """
        for name, sha256 in files.items():
            if name not in self._digests:
                self.write(name, b"")  # an empty file comes without pieces
            if self._digests[name].hexdigest() != sha256:
                raise DeviceError(f"{name}: arrived damaged from the device", hint="run it again")
        for name in files:
            self._aside(name).replace(self._folder / name)

    def _aside(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):  # a device must not choose where the host writes
            raise DeviceError(f"the device sent a file of the name '{name}', which is none")
        return self._folder / f".{name}.arriving"


def _result_of(frame: Frame) -> dict[str, Any]:
    """Return the result of an answer, or raise its error."""
    return Reply(**{key: value for key, value in frame.head.items() if key != "answer"}).unwrap()
