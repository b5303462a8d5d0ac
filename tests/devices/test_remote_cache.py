"""Files that arrive on a device: what a dead receiver left is removed, what a living one writes is not."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_kit.base.errors import DeviceError
from deploy_kit.devices.remote_cache import RemoteCache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[RemoteCache]:
    opened = RemoteCache(tmp_path)
    yield opened
    opened.close()


def opened_again(root: Path) -> None:
    """Open one more session, as the next connection does."""
    RemoteCache(root).close()


def test_a_file_whose_receiver_is_dead_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "files" / "3f9a" / ".model.onnx.0123456789abcdef.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half of it")

    opened_again(tmp_path)

    assert not left.exists()


def test_a_file_that_arrives_is_left_alone(cache: RemoteCache) -> None:
    cache.begin_file(cache.folder_of("3f9a") / "model.onnx", 4)
    cache.append_piece(b"ab")

    opened_again(cache.root)

    (arriving,) = cache.folder_of("3f9a").iterdir()
    assert arriving.read_bytes() == b"ab"


def test_the_lock_and_not_a_process_id_says_who_lives(tmp_path: Path) -> None:
    # Another container's receiver: its process id means nothing here, its lock does.
    held = tmp_path / ".program.0123456789abcdef.part"
    held.touch()
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        opened_again(tmp_path)
        assert held.exists()


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (7200, False)])
def test_what_a_shell_sends_is_left_for_an_hour(age_s: int, stays: bool, tmp_path: Path) -> None:
    sent = tmp_path / ".deploykit-1f0c.pyz.4711"
    sent.touch()
    os.utime(sent, (sent.stat().st_mtime - age_s,) * 2)

    opened_again(tmp_path)

    assert sent.exists() is stays


def test_a_damaged_file_gets_no_name(cache: RemoteCache) -> None:
    cache.begin_file(cache.folder_of("3f9a") / "model.onnx", 2)
    cache.append_piece(b"ab")

    with pytest.raises(DeviceError, match="expected sha256 0000"):
        cache.finish_file("0" * 64)

    assert list(cache.folder_of("3f9a").iterdir()) == []
