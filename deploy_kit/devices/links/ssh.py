"""Link to a device by SSH: an agent is sent there, which keeps files and starts workers. It needs no installation."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError, LinkLostError
from deploy_kit.base.lazy import install_line
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.whole_files import digest_of, parts_of, sha256_of
from deploy_kit.devices import agent_start, login
from deploy_kit.devices.agent_client import AgentClient, RemoteWorker
from deploy_kit.devices.compute_capability import ask_capability, with_capability
from deploy_kit.devices.links import Cleaned, Connection, Link
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Device
from deploy_kit.records.measurements import Environment

_STDERR_BYTES = 600  # of an agent's standard error that an error quotes


class SshConnection:
    """An open connection to a device, with an agent that runs there."""

    def __init__(self, client: AgentClient, folder: Path, session: str) -> None:
        """Wrap a running agent.

        Args:
            client: Connection to the agent.
            folder: Scratch folder on the host.
            session: Folder of the session on the device.
        """
        self.folder = folder
        self.client = client
        self._session = session

    @property
    def device(self) -> Device:
        return self.client.device

    @functools.cached_property
    def environment(self) -> Environment:
        described = codec.from_json(Environment, self.client.ask("environment")["environment"])
        return with_capability(described, self._capability)

    def _capability(self) -> str:
        if self.lacks("numpy"):
            return ""  # no worker starts
        with self.worker() as worker:
            return ask_capability(worker, self.device.name)

    def lacks(self, package: str) -> str:
        found = self.client.ask("present", package=package)
        if found["present"]:
            return ""
        python = self.device.python_word
        return install_line(package, bare=True, python=python, managed=found["managed"])

    def worker(self) -> RemoteWorker:
        return self.client.worker()

    def send(self, file: Path, *, keep: bool = False) -> str:
        parts = {part.name: part for part in parts_of(file)}
        folder, have = f"{self._session}/in", list[str]()
        if keep:
            hashes = {name: sha256_of(part) for name, part in parts.items()}
            kept = self.client.ask("has", digest=digest_of(file), files=hashes)
            folder, have = kept["folder"], kept["have"]
        for name, part in parts.items():
            if name not in have:
                self.client.put(part, f"{folder}/{name}")
        return f"{folder}/{file.name}"

    @contextlib.contextmanager
    def outbox(self, folder: Path) -> Iterator[str]:
        remote = str(self.client.ask("outbox")["folder"])
        yield remote
        self.client.fetch(remote, folder)


@contextlib.contextmanager
def connect(device: Device) -> Iterator[Connection]:
    """Log in, start the agent and open a connection; when it closes, the agent removes its session.

    Raises:
        DeviceError: The device cannot be reached, or lacks Python.
    """
    with login.logged_in(device) as transport:
        channel, reader = agent_start.start_agent(transport, device)
        client, stop = AgentClient(agent_start.ChannelStream(channel), reader, device), threading.Event()
        threading.Thread(target=_send_heartbeats, args=(client, stop), daemon=True).start()
        try:
            hello = _await_hello(client, channel)
            with temporary_folder() as folder:
                yield SshConnection(client, folder, hello["session"])
        finally:
            stop.set()
            with contextlib.suppress(OSError, EOFError):
                channel.shutdown_write()  # the end of its input makes the agent clean up and close its side
            client.wait(agent_start.END_S)


def _await_hello(client: AgentClient, channel: Any) -> dict[str, Any]:
    device = client.device
    try:
        hello = client.hello()
    except LinkLostError as error:
        if not channel.get_transport().is_active():
            raise
        stderr = channel.makefile_stderr("rb").read()[-_STDERR_BYTES:].decode(errors="replace").strip()
        raise DeviceError(
            f"device '{device.name}': the agent did not start there; its last output: {stderr or 'none'}",
            hint=f"on {device.name}: df -h ~; ls -ld ~/.cache/deploykit",
        ) from error
    return hello


def _send_heartbeats(client: AgentClient, stop: threading.Event) -> None:
    """Show the agent that the host lives while a long job runs."""
    while not stop.wait(login.KEEPALIVE_S):
        client.send_heartbeat()


def clean(device: Device) -> Cleaned:
    """Remove deploykit's folder on the device."""
    with connect(device) as connection:
        assert isinstance(connection, SshConnection)
        answer = connection.client.ask("clean")
    return Cleaned(folder=answer["folder"], n_bytes=answer["bytes"])


LINK = Link(connect=connect, clean=clean)
