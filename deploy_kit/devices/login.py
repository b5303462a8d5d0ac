"""SSH login by the user's OpenSSH configuration: keys, agent, ProxyJump and known hosts. Host keys are always checked.

The user is never prompted: a key with a passphrase must be loaded into the SSH agent, and passwords are not used.
"""

import base64
import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError
from deploy_kit.base.lazy import need
from deploy_kit.records.artifacts import Device

TIMEOUT_S = 15
"""Seconds to wait for the connection, the server's banner and the authentication, each."""
KEEPALIVE_S = 5.0
"""Seconds between two keep-alives."""
SERVER_SILENCE_S = 20.0
"""Seconds without an answer, four keep-alives long, after which the connection counts as lost."""
_SYSTEM_KEYS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_USER_KEYS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Parts of an address ``[user@]host[:port]``.

    Attributes:
        user: Name of the user; None where the SSH configuration decides.
        host: Host name, alias of the SSH configuration, or IP address.
        port: Port; None where the SSH configuration decides.
    """

    user: str | None
    host: str
    port: int | None

    @property
    def arguments(self) -> str:
        """Arguments of the command ``ssh`` that reach the address."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def parse_address(text: str) -> Address:
    """Split an address into its parts; the host may be an alias of the SSH configuration, or ``[an IPv6 address]``."""
    user, _, rest = text.rpartition("@")
    host, mark, port = rest.rpartition(":")
    if not mark or rest.endswith("]"):
        host, port = rest, ""
    return Address(user=user or None, host=host.strip("[]"), port=int(port) if port else None)


@contextlib.contextmanager
def logged_in(device: Device) -> Iterator[Any]:
    """Log in to a device, and watch in a thread that its server keeps answering.

    Args:
        device: Device to log in to.

    Yields:
        paramiko's transport.

    Raises:
        DeviceError: The host or its key is unknown, the key has changed, the host cannot be reached, or the login is
            refused; the hint gives a command to run.
    """
    fabric = need("fabric", by=f"device '{device.name}' at 'ssh://{device.address}'")
    where = parse_address(device.address)
    connection = fabric.Connection(
        where.host, user=where.user, port=where.port, connect_timeout=TIMEOUT_S,
        connect_kwargs={"banner_timeout": TIMEOUT_S, "auth_timeout": TIMEOUT_S},
    )  # fmt: skip
    _check_host_keys(connection)
    with _as_device_errors(device, where, connection), contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        connection.open()
        opened = stack.pop_all()
    stop = threading.Event()
    threading.Thread(target=_keep_alive, args=(connection.transport, stop), daemon=True).start()
    try:
        with opened:
            yield connection.transport
    finally:
        stop.set()


def _check_host_keys(connection: Any) -> None:
    """Replace fabric's policy, which accepts every host key, for the device and every host that is jumped through."""
    import paramiko

    hop = connection
    while hop is not None and not isinstance(hop, str):  # a ProxyCommand (a text) runs ssh, which checks by itself
        known, config = paramiko.HostKeys(), hop.ssh_config
        for setting, usual in (("userknownhostsfile", _USER_KEYS), ("globalknownhostsfile", _SYSTEM_KEYS)):
            for file in config.get(setting, usual).split():
                with contextlib.suppress(OSError):
                    known.load(str(Path(file).expanduser()))
        name = _key_name(hop)
        for kind, key in (known.lookup(config.get("hostkeyalias", name)) or {}).items():
            hop.client.get_host_keys().add(name, kind, key)
        hop.client.set_missing_host_key_policy(_RefuseUnknownKeys(name))
        hop = hop.gateway


def _key_name(hop: Any) -> str:
    return hop.host if hop.port == 22 else f"[{hop.host}]:{hop.port}"


class _UnknownHostKey(Exception):  # noqa: N818  # carries the key from the policy through paramiko
    def __init__(self, name: str, key: Any) -> None:
        super().__init__(name)
        self.name, self.key = name, key


class _RefuseUnknownKeys:
    """paramiko's policy for a host that no known_hosts file contains."""

    def __init__(self, name: str) -> None:
        self._name = name

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        raise _UnknownHostKey(self._name, key)


def key_fingerprint(key: Any) -> str:
    """Return a key's fingerprint as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


@contextlib.contextmanager
def _as_device_errors(device: Device, where: Address, connection: Any) -> Iterator[None]:
    import paramiko

    at, name = f"{connection.host}:{connection.port}", f"device '{device.name}'"
    try:
        yield
    except _UnknownHostKey as error:
        raise DeviceError(
            f"{name}: the host key of '{error.name}' is not known here: {error.key.get_name()} "
            f"{key_fingerprint(error.key)}",
            hint=f"ssh {where.arguments}   (compare the fingerprint with the device's own, then answer yes)",
        ) from error
    except paramiko.BadHostKeyException as error:
        raise DeviceError(
            f"{name}: the host key of '{_key_name(connection)}' has changed: expected "
            f"{key_fingerprint(error.expected_key)}, found {key_fingerprint(error.key)}; either the device was set up "
            "anew, or somebody stands between you and it: nothing was sent",
            hint="only if you know why it changed: "
            f"ssh-keygen -R '{_key_name(connection)}', then ssh {where.arguments}",
        ) from error
    except paramiko.PasswordRequiredException as error:
        raise DeviceError(f"{name}: the key is locked with a passphrase", hint="ssh-add, then again") from error
    except paramiko.AuthenticationException as error:
        raise _refused(name, where, connection, str(error)) from error
    except socket.gaierror as error:
        raise DeviceError(
            f"{name}: no host is called '{connection.host}'", hint="check the address: deploykit devices list"
        ) from error
    except TimeoutError as error:
        raise DeviceError(f"{name}: {at} does not answer", hint=_REACH.format(where.arguments)) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        if str(error) == _NO_KEY:
            raise _refused(name, where, connection, "there is no key here that it could take") from error
        refused = isinstance(error, ConnectionRefusedError | paramiko.ssh_exception.NoValidConnectionsError)
        why = "refuses the connection" if refused else f"cannot be reached: {error or type(error).__name__}"
        raise DeviceError(f"{name}: {at} {why}", hint=_REACH.format(where.arguments)) from error


_NO_KEY = "No authentication methods available"  # paramiko has no class for it
_REACH = "is it on, and does its SSH server run? try: ssh {}"


def _refused(name: str, where: Address, connection: Any, why: str) -> DeviceError:
    return DeviceError(
        f"{name}: {connection.host}:{connection.port} refuses the login of '{connection.user}': {why}",
        hint=f"ssh-copy-id {where.arguments}   (or load your key: ssh-add)",
    )


def _keep_alive(transport: Any, stop: threading.Event) -> None:
    """Ask the server repeatedly for an answer, and close the connection when none comes.

    This is what ServerAliveInterval does in OpenSSH; TCP alone would wait a quarter of an hour.
    """
    while not stop.wait(KEEPALIVE_S) and transport.is_active():
        alarm = threading.Timer(SERVER_SILENCE_S, transport.close)
        alarm.daemon = True
        alarm.start()
        with contextlib.suppress(OSError, EOFError):
            transport.global_request("keepalive@openssh.com", wait=True)
        alarm.cancel()
