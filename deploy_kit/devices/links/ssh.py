"""A device behind SSH: an agent is sent there, keeps files and starts workers. Nothing needs to be installed for it."""

import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError, LinkLostError
from deploy_kit.base.lazy import install_line
from deploy_kit.devices import agent_start, login
from deploy_kit.devices.agent_client import AgentClient, RemoteWorker
from deploy_kit.devices.compute_capability import ask_capability, with_capability
from deploy_kit.devices.links import Cleaned, Connection, Link
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Device
from deploy_kit.records.measurements import Environment
from deploy_kit.store import digest_of, parts_of, sha256_of

_WORDS = 600


class SshConnection:
    """An open link to a device."""

    def __init__(self, talk: AgentClient, folder: Path, session: str) -> None:
        """Take a running conversation, a scratch folder here and the session's folder there."""
        self.folder = folder
        self.talk = talk
        self._session = session

    @property
    def device(self) -> Device:
        return self.talk.device

    @functools.cached_property
    def environment(self) -> Environment:
        with self.worker() as worker:
            found = codec.from_json(Environment, worker.ask("environment", self.device.name)["environment"])
            return with_capability(found, lambda: ask_capability(worker, self.device.name))

    def lacks(self, package: str) -> str:
        if self.talk.ask("present", package=package)["present"]:
            return ""
        return install_line(package, bare=True).replace("pip", f"{self.device.python} -m pip", 1)

    def worker(self) -> RemoteWorker:
        return self.talk.worker()

    def send(self, file: Path, *, keep: bool = False) -> str:
        parts = {part.name: part for part in parts_of(file)}
        folder, have = f"{self._session}/in", list[str]()
        if keep:
            hashes = {name: sha256_of(part) for name, part in parts.items()}
            found = self.talk.ask("has", digest=digest_of(file), files=hashes)
            folder, have = found["folder"], found["have"]
        for name, part in parts.items():
            if name not in have:
                self.talk.put(part, f"{folder}/{name}")
        return f"{folder}/{file.name}"

    @contextlib.contextmanager
    def outbox(self, folder: Path) -> Iterator[str]:
        remote = str(self.talk.ask("outbox")["folder"])
        yield remote
        self.talk.fetch(remote, folder)


@contextlib.contextmanager
def connect(device: Device) -> Iterator[Connection]:
    """Log in, start the agent and give a connection; the agent clears its session away when it closes.

    Raises:
        DeviceError: It cannot be reached, or lacks what every job needs.
    """
    with login.logged_in(device) as transport:
        channel, reader = agent_start.start_agent(transport, device)
        talk, stop = AgentClient(agent_start.ChannelStream(channel), reader, device), threading.Event()
        threading.Thread(target=_beat, args=(talk, stop), daemon=True).start()
        try:
            hello = _greeted(talk, channel)
            with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
                yield SshConnection(talk, Path(folder), hello["session"])
        finally:
            stop.set()
            with contextlib.suppress(OSError, EOFError):
                channel.shutdown_write()  # the agent clears up, then closes its side
            talk.wait(agent_start.END_S)


def _greeted(talk: AgentClient, channel: Any) -> dict[str, Any]:
    device = talk.device
    try:
        hello = talk.hello()
    except LinkLostError as error:
        if not channel.get_transport().is_active():
            raise
        words = channel.makefile_stderr("rb").read()[-_WORDS:].decode(errors="replace").strip()
        raise DeviceError(
            f"device '{device.name}': the agent did not start there; its last words: {words or 'none'}",
            hint=f"on {device.name}: df -h ~; ls -ld ~/.cache/deploykit",
        ) from error
    if not talk.ask("present", package="numpy")["present"]:
        raise DeviceError(
            f"device '{device.name}': every job needs the package 'numpy', which is not installed there",
            hint=f"on {device.name}: {device.python} -m pip install numpy",
        )
    return hello


def _beat(talk: AgentClient, stop: threading.Event) -> None:
    """Let the agent hear of us while a job takes long."""
    while not stop.wait(login.BEAT_S):
        talk.beat()


def clean(device: Device) -> Cleaned:
    """Remove the folder on the device."""
    with connect(device) as connection:
        assert isinstance(connection, SshConnection)
        answer = connection.talk.ask("clean")
    return Cleaned(folder=answer["folder"], n_bytes=answer["bytes"])


LINK = Link(connect=connect, clean=clean)
