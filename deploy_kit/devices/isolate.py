"""A worker as a child process: a crash of its native code becomes an error here that names the file and the signal."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.base.live_folder import temporary_place
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.devices.patience import Watch, life_of
from deploy_kit.devices.protocol import Job, await_reply, job_line

_HINTS = {
    "SIGSEGV": "this is a fault of the engine's native code, not of the file format: "
    "quantize for this engine (see `deploykit inspect FILE`), or try another engine version",
    "SIGABRT": "the engine's native code aborted; its last output is above",
    "SIGKILL": "killed from outside, most often because the machine is out of memory: close other programs, "
    "use a smaller batch, or bound a builder's scratch memory (-o workspace_mib=512)",
    "SIGXCPU": "an engine of a bundle gets so much processor time for a job: run bundles of those whom you trust",
    "SIGILL": "the engine's native code uses an instruction that this processor lacks",
}


def describe_exit(code: int) -> str:
    """Return the name of the signal that ended a process, else its exit code; a shell reports a signal as 128 + n."""
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name if number > 0 else f"exit code {code}"
    except ValueError:  # real-time signals have no name, and not every code above 128 is a signal
        return f"signal {number}" if code < 0 else f"exit code {code}"


def crash_error(about: str, op: str, code: int, stderr: str = "") -> EngineCrashError:
    """Create the error for a worker process that died.

    Args:
        about: File that the job was about.
        op: Operation of the job.
        code: Exit code of the process; the negative number of a signal.
        stderr: End of what the process wrote to standard error.
    """
    name = describe_exit(code)
    message = f"{about}: the worker process died in '{op}' with {name}"
    if stderr:
        message += f"; its last output: {stderr}"
    return EngineCrashError(message, hint=_HINTS.get(name, ""))


class Child:
    """A worker process on this machine: jobs are lines on its input, replies are lines on its output.

    Use it as a context manager; closing it ends the process. The worker writes replies to a copy of its standard
    output and redirects the original, so that what a native library prints cannot be taken for a reply.
    """

    def __init__(self, command: tuple[str, ...] = (), *, temporary: Path | None = None) -> None:
        """Start the worker.

        Args:
            command: Command instead of the default ``python -m deploy_kit.programs.worker``.
            temporary: Folder for its temporary files, which whoever owns it removes; by default that of the system.
        """
        # A file and not a pipe: nobody reads standard error while a job runs, and a full pipe would block the worker.
        self._stderr = tempfile.TemporaryFile(dir=temporary or temporary_place())  # noqa: SIM115  # lives as long as the process
        package_root = str(Path(__file__).parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
        self._process = subprocess.Popen(
            command or (sys.executable, "-m", "deploy_kit.programs.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths)}
            | ({"TMPDIR": str(temporary)} if temporary is not None else {}),
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the child in order
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Args:
            op: Name of the worker's operation.
            about: File that the job is about; the error names it if the process dies.
            on_progress: Called with the job's progress events.
            **arguments: Arguments of the operation, as JSON can hold them.

        Raises:
            EngineCrashError: The process died.
            DeployKitError: The worker answered with an error.
        """
        assert self._process.stdin is not None
        watch = Watch(op, about, partial(life_of, self._process.pid), on_progress)
        try:
            self._process.stdin.write(job_line(Job(op=op, arguments=arguments)))
            self._process.stdin.flush()
            reply = await_reply(partial(watch.next_line, self._next_line), on_progress)
        except EngineCrashError:  # it is stopped or hangs, and would not end by itself
            self._process.kill()
            raise
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise self._crash(op, about)
        return reply.unwrap()

    def _next_line(self, limit_s: float) -> str | None:
        try:
            return self._lines.get(timeout=limit_s)
        except queue.Empty:
            return None

    def _listen(self) -> None:
        """Hand on each line, and an empty one at the end."""
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                self._lines.put(line)
        self._lines.put("")

    def close(self) -> None:
        """End the process: close its input, and kill it if it does not end within five seconds."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _crash(self, op: str, about: str) -> EngineCrashError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # its pipe is closed and it lives on: no reply can come any more
            self._process.kill()
            code = self._process.wait()
        self._stderr.seek(0)
        return crash_error(about, op, code, self._stderr.read()[-600:].decode(errors="replace").strip())
