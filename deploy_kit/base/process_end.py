"""The end of a process that does not take its modules apart: of torch's that is half a second of processor time."""

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """Do what was registered for the interpreter's exit, write out what is buffered, and end.

    Threads that still run end with the process.

    Args:
        code: Exit code.
    """
    atexit._run_exitfuncs()  # temporary folders and libraries' own cleaning; it has no public name
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, or none (`pythonw`)
            stream.flush()
    os._exit(code)
