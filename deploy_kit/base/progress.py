"""Progress as values. Stages tell what they do; the command line draws it; nothing important is said only here."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One step of a stage.

    Attributes:
        stage: The stage's word, e.g. ``quantize``.
        text: What is being done, e.g. ``int8: 512 images``.
        done: Steps finished, or 0.
        total: Steps in all, or 0 where nobody knows.
    """

    stage: str
    text: str
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[ProgressEvent], None]


def no_progress(event: ProgressEvent) -> None:
    """Draw nothing."""
