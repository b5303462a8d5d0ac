"""What every stage shares: the store that keeps results, the machine that computes them, and who follows progress."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.devices.links import Connection
from deploy_kit.parallel import ONE_PROCESS, Workers
from deploy_kit.store import Key, Store

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a stage works: a stage is ``run(input, table, context)``.

    Attributes:
        store: Store that keeps every result.
        connection: Open connection to the machine that does the stage's work.
        on_progress: Called with progress events.
        workers: Where what needs no particular machine is computed.
    """

    store: Store
    connection: Connection
    on_progress: ProgressCallback = no_progress
    workers: Workers = ONE_PROCESS

    def report(self, stage: str, text: str, *, done: int = 0, total: int = 0) -> None:
        """Report one step of a stage to whoever follows the progress."""
        self.on_progress(ProgressEvent(stage=stage, text=text, done=done, total=total))

    def produce(
        self,
        cls: type[R],
        make: Callable[[Path, str], R],
        *,
        stage: str,
        name: str,
        inputs: tuple[str, ...],
        options: Any,
        versions: tuple[tuple[str, str], ...],
    ) -> tuple[R, bool]:
        """Return a stage's result from the store, or make and keep it.

        Args:
            cls: Record class of the result.
            make: (folder to write files into, that folder's later path within the store) → record.
            stage: Name of the stage.
            name: Readable part of the result's folder name; it decides nothing.
            inputs: sha256 of each input.
            options: Everything that was asked for and decides the result.
            versions: (what, version) of the stage itself and of the libraries it uses.

        Returns:
            The record, and whether the store had it.
        """
        key = Key(stage=stage, name=name, inputs=inputs, options=options, versions=versions)
        return self.store.produce(cls, key, make)
