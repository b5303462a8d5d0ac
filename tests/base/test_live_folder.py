"""Temporary folders: gone with their process, however it ends; and nobody else's folder is touched."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy_kit.base.errors import StageError
from deploy_kit.base.live_folder import temporary_folder

HOLD = """
import time
from deploy_kit.base.live_folder import temporary_folder
with temporary_folder() as folder:
    (folder / "file").write_text("half of it")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def ended(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_folder_goes_with_its_block(temporary: Path) -> None:
    with temporary_folder() as folder:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o077 == 0

    assert list(temporary.iterdir()) == []


def test_without_a_place_to_write_the_cure_is_named_and_holds(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ["TMPDIR"]])
    monkeypatch.setenv("TMPDIR", str(temporary / "gone"))

    with pytest.raises(StageError, match="no place for temporary files") as caught, temporary_folder():
        pass

    assert caught.value.hint == "name a folder that can be written: export TMPDIR=FOLDER"
    monkeypatch.setenv("TMPDIR", str(temporary))
    with temporary_folder() as folder:
        assert folder.parent == temporary


def test_what_a_killed_process_left_goes_with_the_next_folder(temporary: Path) -> None:
    process = holder()
    ended(process)
    assert len(list(temporary.iterdir())) == 2  # the folder and its lock

    with temporary_folder():
        pass

    assert list(temporary.iterdir()) == []


def test_what_a_killed_worker_left_goes_with_its_hosts_folder(temporary: Path) -> None:
    with temporary_folder():
        ended(holder())
        assert len(list(temporary.iterdir())) == 4

    assert list(temporary.iterdir()) == []


def test_a_living_process_keeps_its_folder(temporary: Path) -> None:
    process = holder()
    before = set(temporary.iterdir())
    try:
        with temporary_folder():
            pass
        assert set(temporary.iterdir()) == before
    finally:
        ended(process)


@pytest.mark.parametrize("name", ["deploykit-work", "deploykit-0123456789abcdefg", "deploykit-XXXXXXXXXXXXXXXX"])
def test_a_folder_of_another_name_is_somebody_elses(name: str, temporary: Path) -> None:
    (temporary / name).mkdir()
    (temporary / f"{name}.lock").touch()
    os.utime(temporary / name, (0, 0))

    with temporary_folder():
        pass

    assert (temporary / name).is_dir()


def test_a_link_in_the_place_of_a_folder_is_not_followed(temporary: Path) -> None:
    (temporary / "precious").mkdir()
    (temporary / "precious" / "file").touch()
    (temporary / "deploykit-0123456789abcdef").symlink_to("precious")
    (temporary / "deploykit-0123456789abcdef.lock").touch()

    with temporary_folder():
        pass

    assert (temporary / "precious" / "file").exists()
