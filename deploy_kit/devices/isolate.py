"""Run native code in a child process: a segfault there becomes an error here that names the file and a hint."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.devices.protocol import Job, await_reply, job_line

_HINTS = {
    "SIGSEGV": "this is a fault of the engine's native code, not of the file format: "
    "quantize for this engine (see `deploykit inspect FILE`), or try another engine version",
    "SIGABRT": "the engine's native code gave up; its last words are above",
    "SIGKILL": "killed from outside, most often because the machine is out of memory: close other programs, "
    "use a smaller batch, or bound a builder's scratch memory (-o workspace_mib=512)",
    "SIGILL": "the engine's native code uses an instruction that this processor lacks",
}


def describe_exit(code: int) -> str:
    """Name what ended a process: a signal, also where a shell tells it as 128 + its number; else its exit code."""
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name if number > 0 else f"exit code {code}"
    except ValueError:  # a real-time signal has no name, and not every code above 128 is one
        return f"signal {number}" if code < 0 else f"exit code {code}"


def crash_error(about: str, op: str, code: int, words: str = "") -> EngineCrashError:
    """Say how a worker process died.

    Args:
        about: The file it was at.
        op: The operation.
        code: Exit code; the negative number of a signal.
        words: The last it wrote to standard error.
    """
    name = describe_exit(code)
    message = f"{about}: the worker process died in '{op}' with {name}"
    if words:
        message += f"; its last words: {words}"
    return EngineCrashError(message, hint=_HINTS.get(name, ""))


class Child:
    """A worker process. Jobs go in as lines, replies come out; closing it ends the process.

    Use it as a context manager. The process talks on its own pipes, so what a native library prints to standard
    output cannot be taken for a reply.
    """

    def __init__(self, command: tuple[str, ...] = ()) -> None:
        """Start the worker; `command` replaces the default ``python -m deploy_kit.programs.worker``."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        package_root = str(Path(__file__).parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
        self._process = subprocess.Popen(
            command or (sys.executable, "-m", "deploy_kit.programs.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is the parent's: it ends the child in order
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Args:
            op: The worker's operation.
            about: The file at work, named if the process dies.
            on_progress: Called with the job's progress.
            **arguments: The operation's arguments, as JSON can hold them.

        Raises:
            EngineCrashError: The process died.
            DeployKitError: The worker answered with an error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(job_line(Job(op=op, arguments=arguments)))
            self._process.stdin.flush()
            reply = await_reply(self._process.stdout.readline, on_progress)
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise self._crash(op, about)
        return reply.unwrap()

    def close(self) -> None:
        """End the process: closed pipes first, then a signal."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _crash(self, op: str, about: str) -> EngineCrashError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # its pipe is closed and it lives on: nothing more will come
            self._process.kill()
            code = self._process.wait()
        self._stderr.seek(0)
        return crash_error(about, op, code, self._stderr.read()[-600:].decode(errors="replace").strip())
