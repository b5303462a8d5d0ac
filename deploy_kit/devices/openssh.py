"""What OpenSSH itself makes of a host: its resolved configuration (``ssh -G``) and its files of known host keys.

OpenSSH reads its configuration with Include, Match, quotes and tokens: the program is asked rather than imitated.
"""

import base64
import contextlib
import fnmatch
import hashlib
import hmac
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.errors import DeviceError
from deploy_kit.base.plain_text import one_line

_ANSWER_S = 15.0
_DEFAULT_KEYS = frozenset(f"id_{kind}" for kind in ("rsa", "dsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss"))
_KNOWN_HOSTS_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """OpenSSH's settings for one host.

    Attributes:
        host: Name or address to connect to.
        user: User to log in as.
        port: Port.
        jump: Hosts to jump through, ``[user@]host[:port]``, the first one first.
        command: Command whose input and output are the connection; empty without one.
        key_alias: Name under which the host's key is known; empty where it is the host's.
        identities: Private keys that the configuration names and that exist, without those that every host has.
        known_hosts: Files of known host keys.
    """

    host: str
    user: str
    port: int
    jump: tuple[str, ...]
    command: str
    key_alias: str
    identities: tuple[str, ...]
    known_hosts: tuple[Path, ...]

    @property
    def key_name(self) -> str:
        """Name under which the host's key is known."""
        name = self.key_alias or self.host.lower()
        return name if self.port == 22 or self.key_alias else f"[{name}]:{self.port}"


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """A key of a host.

    Attributes:
        kind: Type of the key, e.g. ``ssh-ed25519``.
        blob: The public key.
        revoked: Whether the file says that this key must not be accepted.
    """

    kind: str
    blob: bytes
    revoked: bool


def settings_of(host: str, *, user: str | None, port: int | None) -> HostSettings | None:
    """Ask OpenSSH for its settings of a host; None where there is no OpenSSH.

    Args:
        host: Name, alias or address.
        user: User, where the address says one.
        port: Port, where the address says one.

    Raises:
        DeviceError: OpenSSH refuses its configuration or the name, or does not answer.
    """
    if shutil.which("ssh") is None:
        return None
    # OpenSSH takes the home of the password file, whatever HOME says; deploykit's other files go by HOME.
    own = _file(["~/.ssh/config"])
    moved = ["-F", str(own)] if _former_home() is not None and own.is_file() else []
    chosen = [*(["-p", str(port)] if port else []), *(["-l", user] if user else [])]
    command = ["ssh", "-G", *moved, *chosen, "--", host]
    try:
        answer = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_ANSWER_S)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"'{host}': OpenSSH did not say its settings within {_ANSWER_S:g} s",
            hint=f"see what its configuration waits for (Match exec?): ssh -G {host}",
        ) from error
    except OSError as error:
        raise DeviceError(f"'{host}': the command 'ssh' does not run: {error.strerror}") from error
    if answer.returncode != 0:
        why = one_line(answer.stderr.decode(errors="replace").strip())
        raise DeviceError(f"'{host}': OpenSSH refuses it: {why}", hint=f"ssh -G {host}")
    return _parsed(answer.stdout.decode(errors="surrogateescape"))


def _former_home() -> Path | None:
    """Return the home that OpenSSH takes, where HOME says another."""
    with contextlib.suppress(KeyError, RuntimeError):
        listed = Path(pwd.getpwuid(os.getuid()).pw_dir)
        return listed if Path.home() != listed else None
    return None


def _both_homes(file: Path) -> Iterator[Path]:
    yield file
    former = _former_home()
    if former is not None and file.is_relative_to(former):
        yield Path.home() / file.relative_to(former)


def _parsed(text: str) -> HostSettings:
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)

    def one(key: str) -> str:
        value = values.get(key, [""])[-1]
        return "" if value.lower() == "none" else value

    identities = [path for name in values.get("identityfile", []) for path in _both_homes(_file([name]))]
    known = [*_files(one("userknownhostsfile")), *_files(one("globalknownhostsfile"))]
    files = [path for file in known for path in _both_homes(file)]
    return HostSettings(
        host=one("hostname"),
        user=one("user"),
        port=int(one("port") or 22),
        jump=tuple(hop.strip() for hop in one("proxyjump").split(",") if hop.strip()),
        command=one("proxycommand"),
        key_alias=one("hostkeyalias"),
        identities=tuple(str(path) for path in identities if path.name not in _DEFAULT_KEYS and path.is_file()),
        known_hosts=tuple(dict.fromkeys(files)),
    )


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _files(text: str) -> Iterator[Path]:
    """Split a list of files. ``ssh -G`` prints a name with blanks without quotes: the longest that exists is taken."""
    words = text.split(" ") if text else []
    while words:
        n = next((n for n in range(len(words), 1, -1) if _file(words[:n]).exists()), 1)
        yield _file(words[:n])
        del words[:n]


def _file(words: list[str]) -> Path:
    path = Path(_unquoted(" ".join(words)))
    with contextlib.suppress(RuntimeError):  # ~somebody who does not exist
        return path.expanduser()
    return path


def known_keys(files: tuple[Path, ...], name: str) -> list[KnownKey]:
    """List the keys by which a host is known; lines that cannot be read, and those of authorities, say nothing.

    Args:
        files: Files of known host keys; those that cannot be read count as empty.
        name: Name of the host as the files have it: ``host``, or ``[host]:port``.
    """
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            if file.is_file():
                with file.open("rb") as opened:
                    found += [key for line in opened.read(_KNOWN_HOSTS_BYTES).splitlines() for key in _keys(line, name)]
    return found


def _keys(line: bytes, name: str) -> Iterator[KnownKey]:
    """Read one line of sshd(8)'s known_hosts: ``[@marker] patterns type key [comment]``."""
    words = line.decode("utf-8", errors="replace").split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
        return
    patterns, kind, text = words[:3]
    if not _matches(patterns, name):
        return
    with contextlib.suppress(ValueError):
        yield KnownKey(kind=kind, blob=base64.b64decode(text, validate=True), revoked=marker == "@revoked")


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):  # |1|salt|HMAC-SHA1 of the name
        parts = patterns.split("|")
        with contextlib.suppress(ValueError, IndexError):
            digest = hmac.new(base64.b64decode(parts[2]), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(digest, base64.b64decode(parts[3]))
        return False
    taken = False
    for pattern in patterns.lower().split(","):
        if fnmatch.fnmatchcase(name.lower(), pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            taken = True
    return taken
