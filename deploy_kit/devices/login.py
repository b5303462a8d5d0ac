"""SSH login by the user's OpenSSH configuration: keys, agent, ProxyJump and known hosts. Host keys are always checked.

The user is never prompted: a key with a passphrase must be loaded into the SSH agent, and passwords are not used.
"""

import base64
import contextlib
import hashlib
import logging
import shlex
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import DeviceError
from deploy_kit.base.lazy import need
from deploy_kit.devices import openssh
from deploy_kit.records.artifacts import Device

TIMEOUT_S = 15
"""Seconds to wait for the connection, the server's banner and the authentication, each."""
KEEPALIVE_S = 5.0
"""Seconds between two keep-alives."""
SERVER_SILENCE_S = 20.0
"""Seconds without an answer, four keep-alives long, after which the connection counts as lost."""
_MOST_HOPS = 8
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
        """Arguments of the command ``ssh`` that reach the address, quoted for a shell."""
        port = f"-p {self.port} " if self.port else ""
        return port + shlex.quote(f"{self.user}@{self.host}" if self.user else self.host)


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
    hops = _hops(fabric, where)
    connection = hops[-1].connection
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        for hop in hops:  # one after the other, so that an error names the host that it is about
            hop.check_keys()
            with _as_device_errors(device, where, hop):
                hop.open()
        opened = stack.pop_all()
    stop = threading.Event()
    threading.Thread(target=_keep_alive, args=(connection.transport, stop), daemon=True).start()
    try:
        with opened:
            yield connection.transport
    finally:
        stop.set()


@dataclass(kw_only=True)
class _Hop:
    """One host on the way to a device, the last of them the device itself.

    Attributes:
        connection: fabric's connection, through the hop before it.
        key_name: Name under which the host's key is known.
        known_hosts: Files of known host keys.
        keys: Keys by which it is known.
    """

    connection: Any
    key_name: str
    known_hosts: tuple[Path, ...]
    keys: list[Any] = field(default_factory=list)

    def check_keys(self) -> None:
        """Replace fabric's policy, which accepts every host key."""
        import paramiko

        revoked = set()
        for known in openssh.known_keys(self.known_hosts, self.key_name):
            if known.revoked:
                revoked.add(known.blob)
            else:
                # A key of a type that paramiko lacks, or a damaged one, can match no key that it accepts.
                with contextlib.suppress(paramiko.SSHException, ValueError, IndexError, struct.error):
                    self.keys.append(paramiko.PKey.from_type_string(known.kind, known.blob))
        self.keys = [key for key in self.keys if key.asbytes() not in revoked]
        self._expect(self.keys)
        self.connection.client.set_missing_host_key_policy(_RefuseUnknownKeys(revoked))

    def open(self) -> None:
        import paramiko

        try:
            self.connection.open()
        except paramiko.BadHostKeyException as error:
            if error.key not in self.keys:
                raise
            # paramiko holds one key of a type, and a host may be known by several: by the one that it has shown.
            self._expect([error.key])
            self.connection.open()

    def _expect(self, keys: list[Any]) -> None:
        host_keys = self.connection.client.get_host_keys()
        host_keys.clear()
        for kind, key in {key.get_name(): key for key in reversed(keys)}.items():
            host_keys.add(_paramiko_name(self.connection), kind, key)


def _hops(fabric: Any, where: Address, depth: int = 0) -> list[_Hop]:
    """List the connections on the way to an address, as OpenSSH would take it; without OpenSSH, as paramiko does.

    Raises:
        DeviceError: OpenSSH refuses the host, or hosts are jumped through in a circle.
    """
    asked = openssh.settings_of(where.host, user=where.user, port=where.port)
    if asked is None:
        return _paramiko_hops(fabric, where)
    if depth > _MOST_HOPS:
        raise DeviceError(f"'{where.host}': reached through more than {_MOST_HOPS} hosts", hint=f"ssh -v {where.host}")
    hops: list[_Hop] = []
    for number, name in enumerate(asked.jump):
        jump = parse_address(name.removeprefix("ssh://"))
        if number == 0:  # as `ssh -J a,b`: the first goes by its own configuration, each other one through it
            hops = _hops(fabric, jump, depth + 1)
        else:
            through = openssh.settings_of(jump.host, user=jump.user, port=jump.port)
            assert through is not None  # OpenSSH has just answered
            hops.append(_hop(fabric, through, hops[-1].connection))
    return [*hops, _hop(fabric, asked, hops[-1].connection if hops else asked.command or False)]


def _hop(fabric: Any, asked: "openssh.HostSettings", gateway: Any) -> _Hop:
    import paramiko

    logging.getLogger("paramiko").addHandler(
        logging.NullHandler()
    )  # it prints a traceback of each error that it raises
    connection = fabric.Connection(
        asked.host,
        user=asked.user,
        port=asked.port,
        gateway=gateway,
        connect_timeout=TIMEOUT_S,
        connect_kwargs=_limits() | ({"key_filename": list(asked.identities)} if asked.identities else {}),
        config=fabric.Config(ssh_config=paramiko.SSHConfig()),  # it is settled: nothing is read again
    )
    return _Hop(connection=connection, key_name=asked.key_name, known_hosts=asked.known_hosts)


def _paramiko_hops(fabric: Any, where: Address) -> list[_Hop]:
    connection = fabric.Connection(
        where.host, user=where.user, port=where.port, connect_timeout=TIMEOUT_S, connect_kwargs=_limits()
    )
    hops: list[_Hop] = []
    while connection is not None and not isinstance(connection, str):  # a ProxyCommand (a text) checks by itself
        config = connection.ssh_config
        files = f"{config.get('userknownhostsfile', _USER_KEYS)} {config.get('globalknownhostsfile', _SYSTEM_KEYS)}"
        known = tuple(Path(file).expanduser() for file in files.split())
        name = config.get("hostkeyalias", _paramiko_name(connection))
        hops.insert(0, _Hop(connection=connection, key_name=name, known_hosts=known))
        connection = connection.gateway
    return hops


def _limits() -> dict[str, Any]:
    return {"banner_timeout": TIMEOUT_S, "auth_timeout": TIMEOUT_S}


def _paramiko_name(connection: Any) -> str:
    return connection.host if connection.port == 22 else f"[{connection.host}]:{connection.port}"


class _RefusedHostKey(Exception):  # noqa: N818  # carries the key from the policy through paramiko
    def __init__(self, key: Any, *, revoked: bool) -> None:
        super().__init__()
        self.key, self.revoked = key, revoked


class _RefuseUnknownKeys:
    """paramiko's policy for a host that no known_hosts file contains."""

    def __init__(self, revoked: set[bytes]) -> None:
        self._revoked = revoked

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        raise _RefusedHostKey(key, revoked=key.asbytes() in self._revoked)


def key_fingerprint(key: Any) -> str:
    """Return a key's fingerprint as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


@contextlib.contextmanager
def _as_device_errors(device: Device, where: Address, hop: _Hop) -> Iterator[None]:
    import paramiko

    connection = hop.connection
    at, name = f"{connection.host}:{connection.port}", f"device '{device.name}'"
    try:
        yield
    except _RefusedHostKey as error:
        what = f"{error.key.get_name()} {key_fingerprint(error.key)}"
        if error.revoked:
            raise DeviceError(
                f"{name}: the host key of '{hop.key_name}' is revoked: {what}; nothing was sent",
                hint="a known_hosts file marks it '@revoked': give the host a new key, or ask who marked it",
            ) from error
        raise DeviceError(
            f"{name}: the host key of '{hop.key_name}' is not known here: {what}",
            hint=f"ssh {where.arguments}   (compare the fingerprint with the device's own, then answer yes)",
        ) from error
    except paramiko.BadHostKeyException as error:
        raise DeviceError(
            f"{name}: the host key of '{hop.key_name}' has changed: expected "
            f"{key_fingerprint(error.expected_key)}, found {key_fingerprint(error.key)}; either the device was set up "
            "anew, or somebody stands between you and it: nothing was sent",
            hint="only if you know why it changed: "
            f"ssh-keygen -R {shlex.quote(hop.key_name)}, then ssh {where.arguments}",
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
