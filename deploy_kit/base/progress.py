"""Progress events: stages emit them and the command line draws them; nothing important is reported only here."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One step of a stage.

    Attributes:
        stage: Name of the stage, e.g. ``quantize``.
        text: Description of the step, e.g. ``int8: 512 images``.
        done: Number of steps finished.
        total: Number of steps in all; 0 where it is not known.
        stays: Whether it is a finding that a person should see at once and still see at the end.
    """

    stage: str
    text: str
    done: int = 0
    total: int = 0
    stays: bool = False


ProgressCallback = Callable[[ProgressEvent], None]


def no_progress(event: ProgressEvent) -> None:
    """Ignore a progress event."""
