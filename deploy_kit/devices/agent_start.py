"""Start of the agent on a device that has nothing of deploykit: check its Python, send the zip application, start it.

Every command line is ``sh`` and no more, whatever the login shell is; the script goes to its standard input. What a
login prints first is skipped up to a random word that only the script can print.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

from deploy_kit.base.errors import DeviceError, LinkLostError
from deploy_kit.devices import zip_application
from deploy_kit.devices.framing import PIECE_BYTES, FrameReader
from deploy_kit.records.artifacts import Device

FOLDER = ".cache/deploykit"
"""Folder of deploykit in the home folder of the device's user."""
END_S = 10.0
"""Seconds that the agent has for ending its workers and removing its session."""
_OLDEST = (3, 10)
# Written for any Python, including 2, so that one that is too old can report its version.
_VERSION = 'import sys; sys.stdout.write("python %d.%d.%d\\n" % tuple(sys.version_info[:3]))'
_HASH = 'import hashlib, sys; print("holds", hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())'


def program_name() -> str:
    """Return the file name of the zip application, which contains the hash of its content.

    Hosts of different versions therefore keep their programs side by side on one device.
    """
    return f"deploykit-{hashlib.sha256(zip_application.zip_bytes()).hexdigest()[:16]}.pyz"


def start_agent(transport: Any, device: Device) -> tuple[Any, FrameReader]:
    """Start the agent on a device.

    Args:
        transport: SSH connection to the device.
        device: The device.

    Returns:
        Channel to the agent, and a reader of the agent's output.

    Raises:
        DeviceError: The device has no Python, or one that is too old, or no space for the program.
        LinkLostError: The connection ended first.
    """
    with _lost_connection_as_error(device):
        _verify_python(transport, device)
        if not _holds(transport, device):
            _upload(transport, device)
            if not _holds(transport, device):
                raise DeviceError(f"device '{device.name}': deploykit.pyz arrived damaged", hint="run it again")
        return _run_sh(transport, f'exec {device.python_word} "$HOME/{FOLDER}/{program_name()}"', device)


class ChannelStream:
    """Sends through an SSH channel; paramiko's errors for a connection that has ended become OSErrors."""

    def __init__(self, channel: Any) -> None:
        """Wrap an open channel."""
        self._channel = channel

    def sendall(self, data: bytes) -> None:
        """Send all bytes.

        Raises:
            OSError: The connection has ended.
        """
        import paramiko

        try:
            self._channel.sendall(data)
        except (EOFError, paramiko.SSHException) as error:
            raise ConnectionError(str(error)) from error


@contextlib.contextmanager
def _lost_connection_as_error(device: Device) -> Iterator[None]:
    import paramiko

    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        why = f": {error}" if str(error) else ""
        raise LinkLostError(f"device '{device.name}': the connection was lost{why}", hint="run it again") from error


def _verify_python(transport: Any, device: Device) -> None:
    python, name = device.python_word, f"device '{device.name}'"
    lines = _output_of(transport, f"command -v {python} >/dev/null 2>&1 || echo none; {python} -c '{_VERSION}'", device)
    if "none" in lines:
        raise DeviceError(
            f"{name}: there is no '{device.python}'",
            hint=f"on {device.name}: sudo apt-get install python3 python3-numpy, "
            "or name the one to use: deploykit devices add … --python PATH",
        )
    version = next((line.split()[1] for line in lines if line.startswith("python ")), "")
    if not version:
        raise DeviceError(
            f"{name}: '{device.python}' does not run", hint=f"on {device.name}: {device.python_word} --version"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise DeviceError(
            f"{name}: expected Python 3.10 or newer, found {version} ('{device.python}')",
            hint="install a newer one there, and name it: deploykit devices add … --python PATH",
        )


def _holds(transport: Any, device: Device) -> bool:
    path = f'"$HOME/{FOLDER}/{program_name()}"'
    lines = _output_of(transport, f"test -f {path} && {device.python_word} -c '{_HASH}' {path}", device)
    return f"holds {hashlib.sha256(zip_application.zip_bytes()).hexdigest()}" in lines


def _upload(transport: Any, device: Device) -> None:
    # Written under another name and renamed, so that a second host never starts half a program.
    program, aside = zip_application.zip_bytes(), f"$HOME/{FOLDER}/.{program_name()}.$$"
    script = (
        f'mkdir -p "$HOME/{FOLDER}" && echo ready && cat > "{aside}" && '
        f'mv "{aside}" "$HOME/{FOLDER}/{program_name()}" && echo done; rm -f "{aside}"; '
        # Space is asked of the folder that is written, which may lie on a file system of its own, or of its parent.
        f'at="$HOME/{FOLDER}"; while [ ! -d "$at" ]; do at=$(dirname "$at"); done; df -Pk "$at" | tail -n 1'
    )
    channel, reader = _run_sh(transport, script, device)
    if reader.read_line() == b"ready":
        channel.sendall(program)
        channel.shutdown_write()
    lines = _remaining_lines(reader)
    channel.close()
    if "done" not in lines:
        columns = lines[-1].split() if lines else []  # of df: file system, size, used, available, …
        free = f"{int(columns[3]) / 1024:.1f} MiB are free there" if len(columns) > 3 else ""
        raise DeviceError(
            f"device '{device.name}': '~/{FOLDER}' cannot be written" + (f": {free}" if free else ""),
            hint=f"on {device.name}: df -h ~ ~/.cache; ls -ld ~/.cache",
        )


def _output_of(transport: Any, script: str, device: Device) -> list[str]:
    channel, reader = _run_sh(transport, script, device)
    channel.shutdown_write()
    lines = _remaining_lines(reader)
    channel.close()
    return lines


def _remaining_lines(reader: FrameReader) -> list[str]:
    lines = []
    while (line := reader.read_line()) is not None:
        lines.append(line.decode(errors="replace"))
    return lines


def _run_sh(transport: Any, script: str, device: Device) -> tuple[Any, FrameReader]:
    """Run a script in ``sh``, and return the channel and a reader of its output.

    sh reads its input ahead, so nothing may be sent after the script before the script has answered.
    """
    word = f"deploykit-{secrets.token_hex(8)}"
    channel = transport.open_session()
    channel.exec_command("sh")
    channel.sendall(f"echo; echo {word}; {script}; exit\n".encode())
    reader = FrameReader(lambda: channel.recv(PIECE_BYTES))
    while (line := reader.read_line()) is not None:
        if line.strip() == word.encode():
            return channel, reader
    if not transport.is_active():
        raise LinkLostError(f"device '{device.name}': the connection was lost", hint="run it again")
    raise DeviceError(
        f"device '{device.name}': its login gives no shell", hint="the account must be allowed to run commands (sh)"
    )
