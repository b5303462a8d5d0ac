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
        self._drawn_at = self._begun_at = 0.0

    def __enter__(self) -> "Self":
        if self._moving:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )  # fmt: skip

            columns = (
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(), TimeRemainingColumn(compact=True),
            )  # fmt: skip
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
        if event.stays:
            self.write(f"{event.stage}: {one_line(event.text)}")
            return
        if self._progress is not None:
            self._move(event)
            return
        now, step = time.monotonic(), (event.stage, event.text)
        if step != self._last:
            self._begun_at = now
        if step != self._last or now - self._drawn_at > _REPEAT_S:
            left = _left(event, now - self._begun_at)
            sys.stderr.write(f"{event.stage}: {one_line(event.text)}{_count(event)}{left and f', about {left} left'}\n")
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
        total, step = event.total or None, (event.stage, event.text)
        if self._task is None or step != self._last:  # a task's speed is that of one step
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=total, count="")
            self._last = step
        self._progress.update(self._task, completed=event.done, total=total, count=_count(event).strip())


def _count(event: ProgressEvent) -> str:
    return f" {event.done}/{event.total}" if event.total and event.done else ""


def _left(event: ProgressEvent, elapsed_s: float) -> str:
    """Estimate how long a step will still take, by its pace so far; empty where nothing is known yet."""
    if not event.done or event.done >= event.total or elapsed_s < _REPEAT_S / 2:
        return ""
    seconds = elapsed_s * (event.total - event.done) / event.done
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
