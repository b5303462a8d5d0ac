"""Host keys are checked, always: fabric's own policy would take any. Each refusal is read."""

import shutil
import subprocess
from pathlib import Path

import pytest
import ssh_server
from ssh_server import Server

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices import links, login
from deploy_kit.devices.login import Address
from deploy_kit.records.artifacts import Device


def refusal(board: Device) -> DeviceError:
    with pytest.raises(DeviceError) as caught, links.connect_device(board):
        pass
    return caught.value


def fingerprint(public_key: Path) -> str:
    """Give a key's fingerprint as OpenSSH's own tool has it."""
    return subprocess.run(["ssh-keygen", "-lf", public_key], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]


@pytest.fixture
def other_key(server: Server, tmp_path: Path) -> Path:
    """Another server's key."""
    ssh_server.key(tmp_path / "other")
    return tmp_path / "other.pub"


def write_known(server: Server, public_key: Path, name: str = "") -> None:
    kind, body, *_ = public_key.read_text().split()
    server.known_hosts.write_text(f"{name or f'[127.0.0.1]:{server.port}'} {kind} {body}\n")


def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_line_to_run(board: Device, server: Server) -> None:
    server.known_hosts.write_text("")

    error = refusal(board)

    key = fingerprint(server.folder / "host_key.pub")
    wanted = f"device 'board': the host key of '[127.0.0.1]:{server.port}' is not known here: ssh-ed25519 {key}"
    user = server.address.split("@")[0]
    assert str(error) == wanted
    assert error.hint == (
        f"ssh -p {server.port} {user}@127.0.0.1   (compare the fingerprint with the device's own, then answer yes)"
    )
    assert error.exit_code == 4


def test_an_unknown_key_is_not_learned(board: Device, server: Server) -> None:
    server.known_hosts.write_text("")

    refusal(board)

    assert server.known_hosts.read_text() == ""
    assert not server.cache.exists()


def test_a_changed_key_is_told_sternly_with_both_fingerprints(board: Device, server: Server, other_key: Path) -> None:
    write_known(server, other_key)

    error = refusal(board)

    found, expected = fingerprint(server.folder / "host_key.pub"), fingerprint(other_key)
    assert str(error) == (
        f"device 'board': the host key of '[127.0.0.1]:{server.port}' has changed: expected {expected}, found {found}; "
        "either the device was set up anew, or somebody stands between you and it: nothing was sent"
    )
    user, name = server.address.split("@")[0], f"[127.0.0.1]:{server.port}"
    assert error.hint == (
        f"only if you know why it changed: ssh-keygen -R '{name}', then ssh -p {server.port} {user}@127.0.0.1"
    )
    assert error.exit_code == 4


def test_the_users_setting_to_check_nothing_is_not_followed(board: Device, server: Server) -> None:
    server.known_hosts.write_text("")
    (server.host_home / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n")

    assert "is not known here" in str(refusal(board))


def test_a_hashed_entry_is_known(board: Device, server: Server) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", server.known_hosts], capture_output=True, check=True)
    assert "127.0.0.1" not in server.known_hosts.read_text()

    with links.connect_device(board) as connection:
        assert connection.environment.cores


def test_another_file_of_known_hosts_is_read_where_the_configuration_names_it(board: Device, server: Server) -> None:
    shutil.copy(server.known_hosts, server.host_home / "known_elsewhere")
    server.known_hosts.write_text("")
    config = "Host 127.0.0.1\n  UserKnownHostsFile ~/nothing_here ~/known_elsewhere\n"
    (server.host_home / ".ssh" / "config").write_text(config)

    with links.connect_device(board) as connection:
        assert connection.environment.cores


def test_an_alias_of_the_configuration_is_followed(board: Device, server: Server) -> None:
    write_known(server, server.folder / "host_key.pub", "the-orin")
    user, port = server.address.split("@")[0], server.port
    config = f"Host orin\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  HostKeyAlias the-orin\n"
    (server.host_home / ".ssh" / "config").write_text(config)

    with links.connect_device(Device(name="orin", link="ssh", address="orin", python=board.python)) as connection:
        assert connection.environment.cores


def test_a_jump_through_another_host_checks_that_ones_key_too(board: Device, server: Server, other_key: Path) -> None:
    user, port = server.address.split("@")[0], server.port
    config = f"Host inner\n  HostName localhost\n  Port {port}\n  ProxyJump {user}@127.0.0.1:{port}\n"
    (server.host_home / ".ssh" / "config").write_text(config)
    inner = Device(name="inner", link="ssh", address=f"{user}@inner", python=board.python)
    kind, body, *_ = (server.folder / "host_key.pub").read_text().split()
    server.known_hosts.write_text(f"[localhost]:{port} {kind} {body}\n")

    assert f"the host key of '[127.0.0.1]:{port}' is not known here" in str(refusal(inner))

    server.known_hosts.write_text(f"[localhost]:{port},[127.0.0.1]:{port} {kind} {body}\n")
    with links.connect_device(inner) as connection:
        assert connection.environment.cores


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("orin", Address(user=None, host="orin", port=None)),
        ("me@orin:2222", Address(user="me", host="orin", port=2222)),
        ("[fe80::1]:22", Address(user=None, host="fe80::1", port=22)),
        ("me@[::1]", Address(user="me", host="::1", port=None)),
    ],
)
def test_an_address_is_taken_apart(text: str, wanted: Address) -> None:
    assert login.parse_address(text) == wanted


def test_a_revoked_key_is_refused_by_its_name(board: Device, server: Server) -> None:
    kind, body, *_ = (server.folder / "host_key.pub").read_text().split()
    name = f"[127.0.0.1]:{server.port}"
    server.known_hosts.write_text(f"{name} {kind} {body}\n@revoked {name} {kind} {body}\n")

    assert f"the host key of '{name}' is revoked: {kind} SHA256:" in str(refusal(board))


def test_lines_of_authorities_and_broken_ones_hide_no_key(board: Device, server: Server, other_key: Path) -> None:
    kind, body, *_ = other_key.read_text().split()
    known = server.known_hosts.read_text()
    server.known_hosts.write_bytes(f"@cert-authority * {kind} {body}\nbroken\n".encode() + b"\xff\n" + known.encode())

    with links.connect_device(board) as connection:
        assert connection.environment.cores


def test_a_host_may_be_known_by_several_keys_of_a_kind(board: Device, server: Server, other_key: Path) -> None:
    kind, body, *_ = other_key.read_text().split()
    name, known = f"[127.0.0.1]:{server.port}", server.known_hosts.read_text()
    server.known_hosts.write_text(f"{name} {kind} {body}\n{known}")

    with links.connect_device(board) as connection:
        assert connection.environment.cores


def test_an_included_file_and_a_quoted_one_are_read(board: Device, server: Server) -> None:
    odd = server.host_home / "known hosts"
    shutil.copy(server.known_hosts, odd)
    server.known_hosts.write_text("")
    (server.host_home / "more").write_text(f'Host orin\n  HostName 127.0.0.1\n  UserKnownHostsFile "{odd}"\n')
    (server.host_home / ".ssh" / "config").write_text(f"Include {server.host_home / 'more'}\n")
    user, port = server.address.split("@")[0], server.port
    orin = Device(name="orin", link="ssh", address=f"{user}@orin:{port}", python=board.python)

    with links.connect_device(orin) as connection:
        assert connection.environment.cores


def test_a_jump_that_is_switched_off_is_not_taken(board: Device, server: Server) -> None:
    config = "Host 127.0.0.1\n  ProxyJump none\nHost *\n  ProxyJump nowhere.invalid\n"
    (server.host_home / ".ssh" / "config").write_text(config)

    with links.connect_device(board) as connection:
        assert connection.environment.cores


def test_a_jump_host_that_does_not_exist_is_the_one_that_is_named(board: Device, server: Server) -> None:
    (server.host_home / ".ssh" / "config").write_text("Host 127.0.0.1\n  ProxyJump gate.invalid\n")

    assert str(refusal(board)) == "device 'board': no host is called 'gate.invalid'"


def test_hosts_that_are_jumped_through_in_a_circle_are_told(board: Device, server: Server) -> None:
    (server.host_home / ".ssh" / "config").write_text("Host a\n  ProxyJump b\nHost *\n  ProxyJump a\n")

    assert "reached through more than 8 hosts" in str(refusal(board))
