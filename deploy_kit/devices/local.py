"""This machine: every job runs in a fresh child process."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.devices import Connection, Link
from deploy_kit.isolate import Child
from deploy_kit.records import Device


@dataclass(frozen=True)
class _Local:
    folder: Path

    def worker(self) -> Child:
        return Child()

    def send(self, file: Path, *, keep: bool = False) -> str:
        return str(file)

    @contextmanager
    def outbox(self, folder: Path) -> Iterator[str]:
        yield str(folder)


@contextmanager
def connect(device: Device) -> Iterator[Connection]:
    """Give a connection with a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
        yield _Local(Path(folder))


LINK = Link(connect=connect)
