"""Standard streams that are closed, full or gone: what cannot be said is lost, and is never taken for an answer.

A closed descriptor is opened on /dev/null first: the next file to be opened would take its number, and whatever
a native library prints would be written into it.
"""

import errno
import io
import os
import sys
from typing import TextIO

from deploy_kit.base.errors import OutputError


class ReaderGoneError(Exception):
    """Whoever read standard output has gone, as ``head`` does: no error, and nothing more to say."""


class _Output(io.FileIO):
    """Standard output. Its errors are no OSErrors: typer would end a broken pipe with exit code 1."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            raise _lost(error) from error


class _Notes(io.FileIO):
    """Standard error: progress and notes. Where they cannot be written the work goes on."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return len(data)  # type: ignore[arg-type]


def _lost(error: OSError) -> OutputError:
    why = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return OutputError(
        f"standard output cannot be written: {why}",
        hint="write it to another place and run the same line again: what was finished is kept",
    )


def prepare_streams() -> None:
    """Open what is closed, and replace the process's own streams; those that a caller has put in place stay.

    Characters that the encoding of a stream lacks are written with backslashes.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # lives as long as the process
    if sys.stdout is sys.__stdout__ and not isinstance(getattr(_raw(sys.stdout), "raw", None), _Output):
        sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__ and not isinstance(getattr(_raw(sys.stderr), "raw", None), _Notes):
        sys.stderr = _text(_Notes(2, "wb", closefd=False), sys.stderr, line_buffering=True)


def discard_output() -> None:
    """Let what Python would still flush at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def is_utf8(stream: TextIO) -> bool:
    """Return whether a stream takes every character; one in memory does."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"


def _raw(stream: TextIO | None) -> object:
    return getattr(stream, "buffer", None)


def _text(raw: io.FileIO, former: TextIO | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=former.encoding if former is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=line_buffering or bool(getattr(former, "line_buffering", False)),
        write_through=bool(getattr(former, "write_through", False)),
    )
