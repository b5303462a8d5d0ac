"""Bring the agent up on a device that has nothing of ours: look at its Python, send the zip application, start it.

Every command line is ``sh`` and nothing more, whatever the login shell is; what sh shall do goes in on its standard
input. What a login prints before is passed over until a word that nobody else can have printed.
"""

import contextlib
import hashlib
import secrets
import shlex
from collections.abc import Iterator
from typing import Any

from deploy_kit.base.errors import DeviceError, LinkLostError
from deploy_kit.devices import zip_application
from deploy_kit.devices.framing import PIECE_BYTES, FrameReader
from deploy_kit.records.artifacts import Device

FOLDER = ".cache/deploykit"
END_S = 10.0  # for the agent to end its workers and clear up
_OLDEST = (3, 10)
# Old enough for every Python, also 2.
_VERSION = 'import sys; sys.stdout.write("python %d.%d.%d\\n" % tuple(sys.version_info[:3]))'
_HASH = 'import hashlib, sys; print("holds", hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())'


def program_name() -> str:
    """Name the zip application by its content."""
    return f"deploykit-{hashlib.sha256(zip_application.zip_bytes()).hexdigest()[:16]}.pyz"


def start_agent(transport: Any, device: Device) -> tuple[Any, FrameReader]:
    """Start the agent.

    Returns:
        The channel to talk to it, and what it says.

    Raises:
        DeviceError: No Python there, or one that is too old; no space for the program.
        LinkLostError: The connection ended first.
    """
    with _connected(device):
        _verify_python(transport, device)
        if not _holds(transport, device):
            _upload(transport, device)
            if not _holds(transport, device):
                raise DeviceError(f"device '{device.name}': deploykit.pyz arrived damaged", hint="run it again")
        return _sh(transport, f'exec {shlex.quote(device.python)} "$HOME/{FOLDER}/{program_name()}"', device)


class ChannelStream:
    """Sends through a channel; a connection that has ended is an OSError, whatever paramiko calls it."""

    def __init__(self, channel: Any) -> None:
        """Take an open channel."""
        self._channel = channel

    def sendall(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: The connection is gone.
        """
        import paramiko

        try:
            self._channel.sendall(data)
        except (EOFError, paramiko.SSHException) as error:
            raise ConnectionError(str(error)) from error


@contextlib.contextmanager
def _connected(device: Device) -> Iterator[None]:
    import paramiko

    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        why = f": {error}" if str(error) else ""
        raise LinkLostError(f"device '{device.name}': the connection was lost{why}", hint="run it again") from error


def _verify_python(transport: Any, device: Device) -> None:
    python, name = shlex.quote(device.python), f"device '{device.name}'"
    said = _said(transport, f"command -v {python} >/dev/null 2>&1 || echo none; {python} -c '{_VERSION}'", device)
    if "none" in said:
        raise DeviceError(
            f"{name}: there is no '{device.python}'",
            hint=f"on {device.name}: sudo apt-get install python3 python3-numpy, "
            "or name the one to use: deploykit devices add … --python PATH",
        )
    version = next((line.split()[1] for line in said if line.startswith("python ")), "")
    if not version:
        raise DeviceError(
            f"{name}: '{device.python}' does not run", hint=f"on {device.name}: {device.python} --version"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise DeviceError(
            f"{name}: expected Python 3.10 or newer, found {version} ('{device.python}')",
            hint="install a newer one there, and name it: deploykit devices add … --python PATH",
        )


def _holds(transport: Any, device: Device) -> bool:
    path = f'"$HOME/{FOLDER}/{program_name()}"'
    said = _said(transport, f"test -f {path} && {shlex.quote(device.python)} -c '{_HASH}' {path}", device)
    return f"holds {hashlib.sha256(zip_application.zip_bytes()).hexdigest()}" in said


def _upload(transport: Any, device: Device) -> None:
    program, aside = zip_application.zip_bytes(), f"$HOME/{FOLDER}/.{program_name()}.$$"
    script = (
        f'mkdir -p "$HOME/{FOLDER}" && echo ready && cat > "{aside}" && '
        f'mv "{aside}" "$HOME/{FOLDER}/{program_name()}" && echo done; rm -f "{aside}"; df -Pk "$HOME" | tail -n 1'
    )
    channel, reader = _sh(transport, script, device)
    if reader.line() == b"ready":
        channel.sendall(program)
        channel.shutdown_write()
    said = _rest(reader)
    channel.close()
    if "done" not in said:
        free = f"{int(said[-1].split()[3]) / 1024:.1f} MiB are free there" if said and len(said[-1].split()) > 3 else ""
        raise DeviceError(
            f"device '{device.name}': '~/{FOLDER}' cannot be written" + (f": {free}" if free else ""),
            hint=f"on {device.name}: df -h ~; ls -ld ~/.cache",
        )


def _said(transport: Any, script: str, device: Device) -> list[str]:
    channel, reader = _sh(transport, script, device)
    channel.shutdown_write()
    lines = _rest(reader)
    channel.close()
    return lines


def _rest(reader: FrameReader) -> list[str]:
    lines = []
    while (line := reader.line()) is not None:
        lines.append(line.decode(errors="replace"))
    return lines


def _sh(transport: Any, script: str, device: Device) -> tuple[Any, FrameReader]:
    """Let sh run a script; give the channel and its output behind the handshake.

    sh reads its input ahead, so nothing may be sent behind the script before that has answered.
    """
    word = f"deploykit-{secrets.token_hex(8)}"
    channel = transport.open_session()
    channel.exec_command("sh")
    channel.sendall(f"echo; echo {word}; {script}; exit\n".encode())
    reader = FrameReader(lambda: channel.recv(PIECE_BYTES))
    while (line := reader.line()) is not None:
        if line.strip() == word.encode():
            return channel, reader
    if not transport.is_active():
        raise LinkLostError(f"device '{device.name}': the connection was lost", hint="run it again")
    raise DeviceError(
        f"device '{device.name}': its login gives no shell", hint="the account must be allowed to run commands (sh)"
    )
