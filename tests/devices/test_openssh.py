"""OpenSSH's own settings and files of known hosts, held against OpenSSH's own tools."""

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices import openssh
from deploy_kit.devices.openssh import HostSettings, known_keys

pytestmark = pytest.mark.skipif(
    shutil.which("ssh") is None or shutil.which("ssh-keygen") is None, reason="no OpenSSH here: openssh-client"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a folder for SSH's configuration."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path


def settings(home: Path, config: str, host: str = "orin", *, user: str | None = None) -> HostSettings:
    (home / ".ssh" / "config").write_text(config)
    found = openssh.settings_of(host, user=user, port=None)
    assert found is not None
    return found


def test_an_included_file_is_read(home: Path) -> None:
    (home / "more").write_text("Host orin\n  HostName 10.0.0.7\n  User me\n  Port 2222\n")

    found = settings(home, f'Include "{home / "more"}"\n')

    assert (found.host, found.user, found.port, found.key_name) == ("10.0.0.7", "me", 2222, "[10.0.0.7]:2222")


def test_a_jump_that_is_switched_off_is_none(home: Path) -> None:
    config = "Host orin\n  ProxyJump none\nHost *\n  ProxyJump gate\n"

    assert settings(home, config).jump == ()
    assert settings(home, config, "other").jump == ("gate",)


def test_hosts_are_jumped_through_in_their_order(home: Path) -> None:
    assert settings(home, "Host orin\n  ProxyJump me@a:2200,b\n").jump == ("me@a:2200", "b")


def test_a_file_of_known_hosts_may_have_a_blank_in_its_name(home: Path) -> None:
    odd = home / "known hosts"
    odd.touch()

    found = settings(home, f'Host orin\n  UserKnownHostsFile "{odd}" /dev/null\n')

    assert found.known_hosts[:2] == (odd, Path("/dev/null"))


def test_the_users_word_goes_over_the_configuration(home: Path) -> None:
    assert settings(home, "Host orin\n  User me\n", user="you").user == "you"


def test_an_alias_is_the_name_that_the_key_is_known_by(home: Path) -> None:
    assert settings(home, "Host orin\n  Port 2222\n  HostKeyAlias the-orin\n").key_name == "the-orin"


def test_keys_are_taken_that_exist(home: Path) -> None:
    (home / "board key").touch()

    found = settings(home, f'Host orin\n  IdentityFile "{home / "board key"}"\n  IdentityFile {home / "absent"}\n')

    assert found.identities == (str(home / "board key"),)


def test_a_configuration_that_openssh_refuses_is_told_in_its_words(home: Path) -> None:
    with pytest.raises(DeviceError, match=r"'orin': OpenSSH refuses it: .*[Bb]ad configuration option") as caught:
        settings(home, "Host *\n  Nonsense yes\n")

    assert caught.value.hint == "ssh -G orin"


def test_without_openssh_there_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh.shutil, "which", lambda _: None)

    assert openssh.settings_of("orin", user=None, port=None) is None


def test_a_configuration_that_does_not_answer_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "_ANSWER_S", 0.2)

    with pytest.raises(DeviceError, match=r"'orin': OpenSSH did not say its settings within 0\.2 s"):
        settings(home, 'Match exec "sleep 5"\n  User me\n')


KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
OTHER = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(31) + b"\1").decode()


def found(tmp_path: Path, text: str | bytes, name: str = "orin") -> list[tuple[str, bool]]:
    file = tmp_path / "known_hosts"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return [(base64.b64encode(key.blob).decode(), key.revoked) for key in known_keys((file,), name)]


def test_lines_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    lines = [
        f"@cert-authority *.example.com ssh-ed25519 {KEY}",
        "orin",
        "orin ssh-ed25519",
        "orin ssh-ed25519 not!base64",
        "# a comment",
        "",
        "|1|broken ssh-ed25519 AAAA",
        f"orin ssh-ed25519 {KEY} a comment",
    ]

    assert found(tmp_path, "\n".join(lines)) == [(KEY, False)]


def test_a_line_of_other_bytes_hides_no_other_line(tmp_path: Path) -> None:
    assert found(tmp_path, b"caf\xe9 ssh-ed25519 \xff\norin ssh-ed25519 " + KEY.encode()) == [(KEY, False)]


def test_a_revoked_key_is_told_apart(tmp_path: Path) -> None:
    text = f"@revoked orin ssh-ed25519 {KEY}\norin ssh-ed25519 {OTHER}\n"

    assert found(tmp_path, text) == [(KEY, True), (OTHER, False)]


def test_all_keys_of_a_host_are_known(tmp_path: Path) -> None:
    assert len(found(tmp_path, f"orin ssh-ed25519 {KEY}\norin ssh-ed25519 {OTHER}\n")) == 2


def test_no_file_and_a_device_hold_no_keys(tmp_path: Path) -> None:
    assert known_keys((tmp_path / "none", Path("/dev/zero"), tmp_path), "orin") == []


PATTERNS = [
    ("orin", "orin"),
    ("Orin,other", "orin"),
    ("*.example.com", "a.example.com"),
    ("*.example.com,!b.example.com", "b.example.com"),
    ("or?n", "orin"),
    ("[orin]:2222", "[orin]:2222"),
    ("[orin]:2222", "orin"),
    ("orin", "[orin]:2222"),
    ("[*]:2222", "[orin]:2222"),
]


@pytest.mark.parametrize(("patterns", "name"), PATTERNS)
@pytest.mark.parametrize("hashed", [False, True])
def test_a_host_is_found_where_ssh_keygen_finds_it(patterns: str, name: str, hashed: bool, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{patterns} ssh-ed25519 {KEY}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], capture_output=True, check=True)
    theirs = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, check=False).returncode == 0

    assert bool(known_keys((file,), name)) is theirs
