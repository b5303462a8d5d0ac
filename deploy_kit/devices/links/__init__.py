"""Devices: how a job reaches a machine. One file a kind of link."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.records.artifacts import Device

if TYPE_CHECKING:
    from typing_extensions import Self

    from deploy_kit.records.measurements import Environment


class Worker(Protocol):
    """A worker process on the machine, a context manager: leaving it ends the process."""

    def __enter__(self) -> "Self": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        """Send one job and wait for its result.

        Args:
            op: The worker's operation.
            about: What the job is about, as the user knows it: named if the process dies.
            on_progress: Called with the job's progress.
            **arguments: The operation's arguments, as JSON can hold them; paths are the machine's own.

        Raises:
            EngineCrashError: The process died.
            DeployKitError: The worker answered with an error.
        """


class Connection(Protocol):
    """An open link to a machine."""

    @property
    def device(self) -> Device:
        """The machine."""

    @property
    def environment(self) -> "Environment":
        """What it is, and how it is set."""

    def lacks(self, package: str) -> str:
        """Give the line that installs a package which is missing there; empty if it is there."""

    @property
    def folder(self) -> Path:
        """A scratch folder of the host's; gone when the connection closes."""

    def worker(self) -> Worker:
        """Start a worker process on the machine."""

    def send(self, file: Path, *, keep: bool = False) -> str:
        """Make a file of the host, and those that belong to it (`store.parts_of`), readable for workers.

        Args:
            file: Sent under its own name; sending another one of that name replaces it, unless it is kept.
            keep: Leave it there for the next connection, where that saves a copy.

        Returns:
            Its path as a worker sees it.
        """

    def outbox(self, folder: Path) -> AbstractContextManager[str]:
        """Give a folder as a worker sees it; what it writes there is in the host's `folder` once the block ends."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed from a device: the folder, and how many bytes it held."""

    folder: str
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class Link:
    """One kind of link of the catalogue.

    Attributes:
        connect: Opens it.
        clean: Removes what it keeps on the device.
    """

    connect: Callable[[Device], AbstractContextManager[Connection]]
    clean: Callable[[Device], Cleaned]


CATALOGUE: Catalogue[Link] = Catalogue(__name__, "LINK", "kind of link")
LOCAL = Device(name="local", link="local")


def find_device(name: str) -> Device:
    """Give the device of this name, or the one that ``ssh://[user@]host[:port]`` says itself.

    Raises:
        DeviceError: No device of this name is known, or the address is none.
        RecipeError: A file of devices is wrong; the message names the key.
    """
    from deploy_kit.devices import named_devices

    return named_devices.find_named(name)


def connect_device(device: Device) -> AbstractContextManager[Connection]:
    """Open the device's link."""
    return CATALOGUE.get(device.link).connect(device)


def clean_device(device: Device) -> Cleaned:
    """Remove everything that is kept on a device.

    Raises:
        DeviceError: It cannot be reached, or is at work for another connection.
    """
    return CATALOGUE.get(device.link).clean(device)
