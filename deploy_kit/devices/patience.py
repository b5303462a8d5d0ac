"""How long a worker is waited for: as long as it lives and works; one that is stopped or hangs is given up.

Nothing runs in the worker for this, where it would be in the latencies: its processor time and its state are read from
outside. A job that computes may take any time, and the wait is said every ten seconds.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent

STOPPED_S = 30.0
"""Seconds for which a worker may be stopped by a signal."""
IDLE_S = 300.0
"""Seconds for which a worker may take no processor time at all."""
SAY_S = 10.0
"""Seconds of silence after which a wait is said, and again each time."""
LOOK_S = 1.0
"""Seconds between two looks at a worker of this machine."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """A process at one moment.

    Attributes:
        stopped: Whether a signal has stopped it.
        cpu_s: Processor time in seconds that it has taken, with its children.
    """

    stopped: bool
    cpu_s: float


def life_of(pid: int) -> Life | None:
    """Look at a process of this machine; None where nothing can be seen of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children")
        below = children.read_text().split() if children.is_file() else []
    except OSError:
        return None
    # Fields 3 and 14 to 17 of proc_pid_stat(5): state, then time of its own and of children that have ended.
    ticks = sum(int(field) for field in fields[11:15])
    living = [life for child in below if (life := life_of(int(child))) is not None]
    cpu_s = ticks / os.sysconf("SC_CLK_TCK") + sum(life.cpu_s for life in living)
    return Life(stopped=fields[0] in "Tt", cpu_s=cpu_s)


class Watch:
    """The wait for one job."""

    def __init__(
        self,
        op: str,
        about: str,
        look: Callable[[], Life | None],
        on_progress: ProgressCallback,
        *,
        at: str = "",
        look_s: float | None = None,
    ) -> None:
        """Begin to wait.

        Args:
            op: Operation of the job.
            about: Subject of the job, as the user knows it.
            look: Looks at the worker.
            on_progress: Called with how long the job has been waited for.
            at: Name of the device; empty for this machine.
            look_s: Seconds between two looks; by default `LOOK_S`.
        """
        self._op, self._about, self._look, self._on_progress = op, about, look, on_progress
        self._at, self._look_s = f" on {at}" if at else "", look_s or LOOK_S
        self._begun = time.monotonic()
        self._said_s = self._stopped_s = self._idle_s = 0.0
        self._cpu_s = -1.0

    def next_line(self, receive: Callable[[float], str | None]) -> str:
        """Wait for the worker's next line.

        Args:
            receive: Waits for a line for a number of seconds; None where none came.

        Raises:
            EngineCrashError: The worker is stopped, or takes no processor time, for longer than its limit.
        """
        while (line := receive(self._look_s)) is None:
            # Looks are counted and not the clock's seconds: this process may have been stopped, or the machine asleep.
            self._count(self._look())
        self._said_s = self._stopped_s = self._idle_s = 0.0
        return line

    def _count(self, life: Life | None) -> None:
        if life is not None:
            idle = life.cpu_s == self._cpu_s
            self._stopped_s = self._stopped_s + self._look_s if life.stopped else 0.0
            self._idle_s = self._idle_s + self._look_s if idle and not life.stopped else 0.0
            self._cpu_s = life.cpu_s
        if self._stopped_s >= STOPPED_S:
            raise self._error(f"was stopped by a signal for {STOPPED_S:g} s", "run it again, and let its processes run")
        if self._idle_s >= IDLE_S:
            raise self._error(
                f"took no processor time for {IDLE_S:g} s",
                "its native code hangs: run it again; where it comes back, another engine or version may not hang",
            )
        self._said_s += self._look_s
        if self._said_s >= SAY_S:
            self._said_s = 0.0
            waited_s = time.monotonic() - self._begun
            state = "stopped by a signal" if life is not None and life.stopped else "at work"
            text = f"waiting for '{self._op}' of {self._about}{self._at} for {waited_s:.0f} s; it is {state}"
            self._on_progress(ProgressEvent(stage="worker", text=text))

    def _error(self, what: str, hint: str) -> EngineCrashError:
        return EngineCrashError(
            f"{self._about}: the worker process{self._at} {what} in '{self._op}' and was ended", hint=hint
        )
