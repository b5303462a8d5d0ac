"""Draws progress on standard error: a moving line on a terminal or in a notebook, plain lines elsewhere."""

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deploy_kit.base.plain_text import one_line, printable
from deploy_kit.base.progress import ProgressEvent

if TYPE_CHECKING:
    from typing_extensions import Self

_REPEAT_S = 5.0


def can_move() -> bool:
    """Return whether standard error is a terminal, or the cell of a notebook, that takes a moving line."""
    return "NO_COLOR" not in os.environ and (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Return whether this process runs the cells of a notebook."""
    if "IPython" not in sys.modules:  # a notebook has loaded it, and rich would cost a start without it
        return False
    from rich.console import Console

    return Console().is_jupyter


class ProgressDisplay:
    """Draws progress events. A context manager: it takes its moving line away at the end."""

    def __init__(self, *, moving: bool) -> None:
        """Draw one moving line, or else a plain line a step."""
        self._moving = moving
        self._progress: Any = None
        self._task: Any = None
        self._last = ("", "")
        self._drawn_at = 0.0

    def __enter__(self) -> "Self":
        if self._moving:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the moving line away; what follows is drawn plainly."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_progress(self, event: ProgressEvent) -> None:
        """Draw one event: on the moving line, else a plain line a step and at most one each five seconds."""
        if self._progress is not None:
            self._move(event)
            return
        now, step = time.monotonic(), (event.stage, event.text)
        if step != self._last or now - self._drawn_at > _REPEAT_S:
            count = f" {event.done}/{event.total}" if event.total and event.done else ""
            sys.stderr.write(f"{event.stage}: {one_line(event.text)}{count}\n")
            sys.stderr.flush()
            self._last, self._drawn_at = step, now

    def write(self, text: str) -> None:
        """Write a line that stays."""
        if self._progress is not None:
            self._progress.console.print(printable(text), markup=False, highlight=False)
        else:
            sys.stderr.write(printable(text) + "\n")

    def _move(self, event: ProgressEvent) -> None:
        description = f"[bold]{event.stage}[/bold] {one_line(event.text).replace('[', '(')}"
        total = event.total or None
        if self._task is None:
            self._task = self._progress.add_task(description, total=total)
        self._progress.update(self._task, description=description, completed=event.done, total=total)
