"""Link to this machine: every worker is a child process, and files are used where they are."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.errors import RequestError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.devices.compute_capability import ask_capability, with_capability
from deploy_kit.devices.isolate import Child
from deploy_kit.devices.links import Cleaned, Connection, Link
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Device
from deploy_kit.records.measurements import Environment


@dataclass(frozen=True)
class _Local:
    device: Device
    folder: Path

    @property
    def environment(self) -> Environment:
        return with_capability(environment.describe_machine(), _capability)

    def lacks(self, package: str) -> str:
        return "" if present(package) else install_line(package)

    def worker(self) -> Child:
        return Child(temporary=self.folder)

    def send(self, file: Path, *, keep: bool = False) -> str:
        return str(file)

    @contextmanager
    def outbox(self, folder: Path) -> Iterator[str]:
        yield str(folder)


@functools.cache
def _capability() -> str:
    with Child() as child:
        return ask_capability(child, "local")


@contextmanager
def connect(device: Device) -> Iterator[Connection]:
    """Open a connection with a temporary scratch folder."""
    with temporary_folder() as folder:
        yield _Local(device, folder)


def clean(device: Device) -> Cleaned:
    """Refuse to clean: this machine keeps results in its store alone.

    Raises:
        RequestError: Always.
    """
    raise RequestError(
        f"'{device.name}' is this machine: nothing is kept beside the store", hint="rm -r .deploykit removes the store"
    )


LINK = Link(connect=connect, clean=clean)
