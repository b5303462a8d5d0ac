"""A real OpenSSH server on a port of this machine, with keys, known hosts and a home folder of its own."""

import contextlib
import getpass
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = "/usr/sbin/sshd"


@dataclass
class Server:
    """A running server and the two homes: the host's with its SSH configuration, and the device's."""

    folder: Path
    port: int
    process: subprocess.Popen

    @property
    def host_home(self) -> Path:
        return self.folder / "host"

    @property
    def device_home(self) -> Path:
        return self.folder / "device"

    @property
    def cache(self) -> Path:
        return self.device_home / ".cache" / "deploykit"

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def known_hosts(self) -> Path:
        return self.host_home / ".ssh" / "known_hosts"

    def know(self, key: str = "host_key") -> None:
        """Make the host know the server by one of its keys."""
        kind, body, *_ = (self.folder / f"{key}.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {body}\n")

    def reset(self) -> None:
        """Forget what a test has done: the host knows the server's key, the device's home is empty."""
        for home in (self.host_home, self.device_home):
            for entry in home.iterdir():
                if entry.name != ".ssh":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.host_home / ".ssh" / "config").unlink(missing_ok=True)
        self.know()

    def sessions(self) -> list[Path]:
        """List the folders of connections on the device."""
        return [path for path in (self.cache / "sessions").iterdir() if path.is_dir()]

    def login_processes(self) -> list[int]:
        """List the server's processes that hold a connection, by number."""
        return [pid for pid in descendants(self.process.pid) if b"sshd" in _command(pid)]

    def cut(self) -> None:
        """Kill the server's side of every connection, as a cable that is pulled out would end them."""
        for pid in self.login_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def descendants(pid: int) -> list[int]:
    """List the children of a process, their children and so on."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def until(fact: Callable[[], bool], limit_s: float = 20) -> bool:
    """Wait until something is so."""
    end = time.monotonic() + limit_s
    while not fact() and time.monotonic() < end:
        time.sleep(0.05)
    return fact()


def key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path, *, largest_file: int = resource.RLIM_INFINITY) -> Iterator[Server]:
    """Start a server whose login finds its home in ``folder/device``, and can write no larger file than this."""
    for name in ("host/.ssh", "device"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key(folder / "host_key")
    key(folder / "host" / ".ssh" / "id_ed25519")
    shutil.copy(folder / "host" / ".ssh" / "id_ed25519.pub", folder / "authorized_keys")
    port = free_port()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",  # pytest's folders may be open to a group
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": f"HOME={folder / 'device'}",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a server of root's gives up its rights
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", folder / "sshd_config"],
        stderr=log,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )
    try:
        _wait_until_it_answers(port, process, folder / "sshd.log")
        server = Server(folder, port, process)
        server.know()
        yield server
        server.cut()
    finally:
        process.terminate()
        process.wait()
        log.close()


def _wait_until_it_answers(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as answer:
            if answer.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise AssertionError(f"{SSHD} does not answer: {log.read_text()}")
