"""What lies on a device: sent once, verified, cleared away; over a real SSH connection."""

import os
from pathlib import Path

import pytest
from ssh_server import Server, descendants

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices import links
from deploy_kit.devices.agent_client import AgentClient
from deploy_kit.records.artifacts import Device


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are sent from now on."""
    names, put = list[str](), AgentClient.put

    def counted(self: AgentClient, file: Path, path: str) -> None:
        names.append(file.name)
        put(self, file, path)

    monkeypatch.setattr(AgentClient, "put", counted)
    return names


def test_a_kept_file_arrives_whole_under_its_hash(board: Device, server: Server, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "model.plan").write_bytes(content)

    with links.connect_device(board) as connection:
        path = Path(connection.send(tmp_path / "model.plan", keep=True))

        assert path.read_bytes() == content
    assert path.read_bytes() == content
    assert path.parent.parent == server.cache / "files"


def test_a_second_connection_sends_nothing(board: Device, tmp_path: Path, sent: list[str]) -> None:
    (tmp_path / "model.xml").write_bytes(b"graph")
    (tmp_path / "model.bin").write_bytes(b"weights")
    with links.connect_device(board) as connection:
        first = connection.send(tmp_path / "model.xml", keep=True)
    assert sorted(sent) == ["model.bin", "model.xml"]
    sent.clear()

    with links.connect_device(board) as connection:
        second = connection.send(tmp_path / "model.xml", keep=True)

    assert (second, sent) == (first, [])


def test_the_program_is_sent_once(board: Device, server: Server) -> None:
    with links.connect_device(board):
        pass
    (program,) = server.cache.glob("*.pyz")
    arrived = program.stat().st_mtime_ns

    with links.connect_device(board):
        pass

    assert [(path, path.stat().st_mtime_ns) for path in server.cache.glob("*.pyz")] == [(program, arrived)]


def test_a_damaged_program_is_sent_again(board: Device, server: Server) -> None:
    with links.connect_device(board):
        pass
    (program,) = server.cache.glob("*.pyz")
    whole = program.read_bytes()
    program.write_bytes(whole[:1000])

    with links.connect_device(board):
        pass

    assert program.read_bytes() == whole


def test_a_kept_file_that_was_damaged_is_sent_again(board: Device, tmp_path: Path, sent: list[str]) -> None:
    (tmp_path / "model.plan").write_bytes(b"right")
    with links.connect_device(board) as connection:
        path = Path(connection.send(tmp_path / "model.plan", keep=True))
        path.write_bytes(b"wrong")

        connection.send(tmp_path / "model.plan", keep=True)

    assert (path.read_bytes(), sent) == (b"right", ["model.plan", "model.plan"])


def test_results_come_back_and_leave_nothing(board: Device, tmp_path: Path) -> None:
    with links.connect_device(board) as connection:
        with connection.outbox(tmp_path) as outbox:
            Path(outbox, "logits.npy").write_bytes(b"x" * 1_000_000)
            Path(outbox, "empty.txt").write_bytes(b"")

        assert not Path(outbox).exists()
    assert (tmp_path / "logits.npy").read_bytes() == b"x" * 1_000_000
    assert (tmp_path / "empty.txt").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "logits.npy"]


def test_the_sessions_folder_goes_with_the_connection(board: Device, server: Server, tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_bytes(b"images")

    with links.connect_device(board) as connection:
        path = Path(connection.send(tmp_path / "images.npy"))
        assert path.is_file()

    assert not path.exists()
    assert [entry.name for entry in (server.cache / "sessions").iterdir()] == [".lock"]


def test_an_exception_takes_the_sessions_folder_and_the_workers_too(board: Device, server: Server) -> None:
    with pytest.raises(KeyboardInterrupt), links.connect_device(board) as connection, connection.worker() as worker:
        pid = worker.pid  # type: ignore[attr-defined]
        assert pid in descendants(server.process.pid)
        raise KeyboardInterrupt

    assert pid not in descendants(server.process.pid)
    assert [entry.name for entry in (server.cache / "sessions").iterdir()] == [".lock"]


def test_a_dead_runs_folder_is_removed_at_the_next_connection(board: Device, server: Server) -> None:
    stale = server.cache / "sessions" / "dead"
    stale.mkdir(parents=True)
    (stale / "lock").write_bytes(b"")
    (stale / "images.npy").write_bytes(b"left behind")

    with links.connect_device(board):
        assert not stale.exists()


def test_a_living_runs_folder_is_left_alone(board: Device, tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_bytes(b"images")

    with links.connect_device(board) as first:
        path = Path(first.send(tmp_path / "images.npy"))
        with links.connect_device(board):
            pass

        assert path.read_bytes() == b"images"


def test_clean_empties_the_device_and_says_how_much(board: Device, server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"x" * 2_000_000)
    with links.connect_device(board) as connection:
        connection.send(tmp_path / "model.plan", keep=True)

    cleaned = links.clean_device(board)

    assert not server.cache.exists()
    assert cleaned.folder == str(server.cache)
    assert 2_000_000 < cleaned.n_bytes < 2_200_000


def test_clean_is_refused_while_another_works_there(board: Device, server: Server) -> None:
    with links.connect_device(board), pytest.raises(DeviceError) as caught:
        links.clean_device(board)

    assert str(caught.value) == f"{server.cache}: other connections are at work there (1)"
    assert caught.value.hint == "wait until they have ended"


def test_a_file_larger_than_the_disk_is_refused_before_it_is_sent(board: Device, server: Server) -> None:
    with links.connect_device(board) as connection, pytest.raises(DeviceError) as caught:
        connection.client.ask("put", path=f"{server.cache}/files/x/model.plan", size=1 << 60)  # type: ignore[attr-defined]

    assert str(caught.value).startswith(f"{server.cache}/files/x/model.plan: no space left for 1099511627776.0 MiB, ")
    assert str(caught.value).endswith(" MiB are free there")
    assert caught.value.exit_code == 4


def test_nothing_is_written_outside_the_one_folder(board: Device, server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"x")

    with links.connect_device(board) as connection, connection.worker() as worker:
        connection.send(tmp_path / "model.plan", keep=True)
        worker.ask("environment", "board")

    assert [path.name for path in server.device_home.iterdir()] == [".cache"]
    assert [path.name for path in (server.device_home / ".cache").iterdir()] == ["deploykit"]
