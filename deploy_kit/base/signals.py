"""Signals that end the process: it unwinds, so that folders and workers go, and its exit code names the signal.

Imports nothing but the standard module, so that it can be called before anything else of the program is loaded.
"""

import signal
from types import FrameType

_received: list[int] = []


def watch_signals() -> None:
    """Unwind at SIGINT, SIGTERM and SIGHUP; one that the caller has set to be ignored, as nohup does, stays ignored."""
    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)


def signal_exit_code() -> int | None:
    """Return the exit code of the signal that came, whatever was made of its exception since; None where none came."""
    return 128 + _received[0] if _received else None


def _unwind(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
