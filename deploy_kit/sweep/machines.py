"""Whose turn it is on a machine: whatever computes may share it, what is timed has it for itself."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from deploy_kit.devices.links import LOCAL
from deploy_kit.records.artifacts import Device


class Machine:
    """One machine, in the eyes of the threads of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._computing, self._measuring, self._waiting = 0, False, 0

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Wait until nothing is timed or waits to be, and compute beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._measuring and not self._waiting)
            self._computing += 1
        try:
            yield
        finally:
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Wait until nothing computes, and have the machine alone."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._measuring and not self._computing)
                self._measuring = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._measuring = False
                self._changed.notify_all()


def machine_key(device: Device) -> str:
    """Return what is equal for devices that are one machine: several accelerators of a board, or this machine by SSH.

    A tunnel to another machine that begins at this one counts as this one: nothing is then timed beside its work,
    which costs time alone.
    """
    host = device.address.rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if device.link == LOCAL.link or (device.link == "ssh" and _is_here(host)):
        return LOCAL.link
    return f"{device.link}://{host if device.link == 'ssh' else device.address}"


def _is_here(host: str) -> bool:
    """Return whether a host's address is one of this machine's own: nobody else can bind it."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False  # an alias of the SSH configuration
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False
