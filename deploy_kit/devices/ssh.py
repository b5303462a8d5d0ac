"""A device behind SSH: an agent is sent there, keeps files and starts workers. Nothing needs to be installed for it."""

import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from deploy_kit import codec
from deploy_kit.devices import Connection, Link, _login, _start
from deploy_kit.devices._talk import RemoteWorker, Talk
from deploy_kit.errors import DeviceError, LinkLostError
from deploy_kit.lazy import install_line
from deploy_kit.measurements import Environment
from deploy_kit.records import Device
from deploy_kit.store import digest_of, parts_of, sha256_of


class SshConnection:
    """An open link to a device."""

    def __init__(self, talk: Talk, folder: Path, session: str) -> None:
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
            return codec.from_json(Environment, worker.ask("environment", self.device.name)["environment"])

    def lacks(self, package: str) -> str:
        if self.talk.ask("present", package=package)["present"]:
            return ""
        line = install_line(package, bare=True).replace("pip install", f"{self.device.python} -m pip install")
        return f"package '{package}' is not installed on '{self.device.name}' (there: {line})"

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
    with _login.logged_in(device) as transport:
        channel, reader = _start.agent(transport, device)
        talk, stop = Talk(channel, reader, device), threading.Event()
        threading.Thread(target=_beat, args=(talk, stop), daemon=True).start()
        try:
            hello = _greeted(talk, channel)
            with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
                yield SshConnection(talk, Path(folder), hello["session"])
        finally:
            stop.set()
            channel.shutdown_write()  # the agent clears up, then closes its side
            talk.wait(_start.END_S)


def _greeted(talk: Talk, channel: object) -> dict[str, str]:
    try:
        return talk.hello()
    except LinkLostError as error:
        raise DeviceError(
            f"device '{talk.device.name}': the agent did not start there", hint="is its disk full? try: df -h ~"
        ) from error


def _beat(talk: Talk, stop: threading.Event) -> None:
    """Let the agent hear of us while a job takes long."""
    while not stop.wait(_login.BEAT_S):
        talk.beat()


LINK = Link(connect=connect)
