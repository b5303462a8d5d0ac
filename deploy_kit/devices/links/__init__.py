"""Links: connections to a machine, and the workers on it. One file for each kind of link.

A third party registers a kind of link under the entry points ``deploy_kit.links``, formerly ``deploy_kit.devices``.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import DeviceError
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.records.artifacts import Device

if TYPE_CHECKING:
    from typing_extensions import Self

    from deploy_kit.records.measurements import Environment


class Worker(Protocol):
    """A worker process on a machine; leaving its context ends the process."""

    def __enter__(self) -> "Self": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Args:
            op: Name of the worker's operation.
            about: Subject of the job, as the user knows it; the error names it if the process dies.
            on_progress: Called with the job's progress events.
            **arguments: Arguments of the operation, as JSON can hold them; paths are those of the machine.

        Raises:
            EngineCrashError: The process died.
            DeployKitError: The worker answered with an error.
        """


class Connection(Protocol):
    """An open connection to a machine."""

    @property
    def device(self) -> Device:
        """The machine."""

    @property
    def environment(self) -> "Environment":
        """Description of the machine and its settings."""

    def lacks(self, package: str) -> str:
        """Return the command that installs a package which is missing on the machine; empty if it is installed."""

    @property
    def folder(self) -> Path:
        """Scratch folder on the host, removed when the connection closes."""

    def worker(self) -> Worker:
        """Start a worker process on the machine."""

    def send(self, file: Path, *, keep: bool = False) -> str:
        """Make a file of the host, and those that belong to it (`whole_files.parts_of`), readable for workers.

        Args:
            file: File to send under its own name; another file of that name replaces it, unless it is kept.
            keep: Keep the file on the machine for later connections, where that saves a copy.

        Returns:
            Path of the file as a worker sees it.
        """

    def outbox(self, folder: Path) -> AbstractContextManager[str]:
        """Return a context whose value is an output folder as a worker sees it.

        Args:
            folder: Folder of the host that holds what the worker wrote, once the context is left.
        """


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed from a device.

    Attributes:
        folder: Path of the removed folder on the device.
        n_bytes: Size of its files in bytes.
    """

    folder: str
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class Link:
    """One kind of link of the catalogue.

    Attributes:
        connect: device → context of an open connection to it.
        clean: device → removes everything that is kept on it, and reports what was removed.
    """

    connect: Callable[[Device], AbstractContextManager[Connection]]
    clean: Callable[[Device], Cleaned]


CATALOGUE: Catalogue[Link] = Catalogue(__name__, "LINK", "kind of link", former_groups=("deploy_kit.devices",))
LOCAL = Device(name="local", link="local")
"""This machine."""


def find_device(name: str) -> Device:
    """Return the device of this name, or the one at the address ``ssh://[user@]host[:port]``.

    Raises:
        DeviceError: No device has this name.
        RecipeError: The address is not valid, or a file of devices is wrong; the message names the key.
    """
    from deploy_kit.devices import named_devices

    return named_devices.find_named(name)


@contextlib.contextmanager
def connect_device(device: Device, *, bare: bool = False) -> Iterator[Connection]:
    """Open a connection to a device.

    Args:
        device: The device.
        bare: Whether Python alone will do there, as it does to look at a device; every job needs numpy as well.

    Raises:
        DeviceError: The device cannot be reached, or lacks what every job needs.
    """
    with CATALOGUE.get(device.link).connect(device) as connection:
        cure = "" if bare else connection.lacks("numpy")
        if cure:
            raise DeviceError(
                f"device '{device.name}': every job needs the package 'numpy', which is not installed there",
                hint=f"on {device.name}: {cure}",
            )
        yield connection


def clean_device(device: Device) -> Cleaned:
    """Remove everything that is kept on a device.

    Raises:
        DeviceError: The device cannot be reached, or other connections use it.
    """
    return CATALOGUE.get(device.link).clean(device)
