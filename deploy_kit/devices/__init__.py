"""Devices: how a job reaches a machine. One file a kind of link."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy_kit.catalogue import Catalogue
from deploy_kit.errors import DeviceError
from deploy_kit.isolate import Child
from deploy_kit.records import Device


class Connection(Protocol):
    """An open link to a machine."""

    @property
    def folder(self) -> Path:
        """A scratch folder that host and workers both see; gone when the connection closes."""

    def worker(self) -> Child:
        """Start a worker process on the machine."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """One kind of link of the catalogue."""

    connect: Callable[[Device], AbstractContextManager[Connection]]


CATALOGUE: Catalogue[Link] = Catalogue(__name__, "LINK", "kind of link")
LOCAL = Device(name="local", link="local")


def find(name: str) -> Device:
    """Give the device of this name.

    Raises:
        DeviceError: No device of this name is known.
    """
    if name != LOCAL.name:
        raise DeviceError(
            f"no device is called '{name}'", hint="this version works on 'local': leave --device out, or run it there"
        )
    return LOCAL


def connect(device: Device) -> AbstractContextManager[Connection]:
    """Open the device's link."""
    return CATALOGUE.get(device.link).connect(device)
