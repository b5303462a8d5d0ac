"""The agent as a process of its own: it goes, with all it has, when nobody is there any more."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_kit.devices.framing import Frame, FrameReader
from deploy_kit.devices.isolate import Child

pytestmark = pytest.mark.slow

SERVE = """
import sys
from pathlib import Path
from deploy_kit.programs import agent
agent.serve_host(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
"""
PACKAGE = Path(__file__).parents[2]


class Talker:
    """An agent's process, and requests to it."""

    def __init__(self, root: Path, silence_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, root, PACKAGE, str(silence_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PACKAGE)},
        )  # fmt: skip
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        self.reader = FrameReader(lambda: os.read(out, 1 << 16))
        self.hello = self.answer()

    def close(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()

    def answer(self) -> dict[str, object]:
        frame = self.reader.read_frame()
        assert frame is not None
        return frame.head

    def send(self, *frames: Frame) -> None:
        assert self.process.stdin is not None
        for frame in frames:
            self.process.stdin.write(frame.to_bytes())
        self.process.stdin.flush()

    def ask(self, op: str, **arguments: object) -> dict[str, object]:
        self.send(Frame(head={"ask": 1, "op": op, "arguments": arguments}))
        return self.answer()


@pytest.fixture
def talker(tmp_path: Path) -> Iterator[Talker]:
    with contextlib.closing(Talker(tmp_path / "root", 60)) as made:
        yield made


def gone(pid: int, limit_s: float = 10) -> bool:
    """Wait until a process that is not our child is gone."""
    end = time.monotonic() + limit_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_silence_ends_it_with_its_workers_and_its_session(tmp_path: Path) -> None:
    with contextlib.closing(Talker(tmp_path / "root", 1.0)) as talker:
        pid = talker.ask("start", number=7)["result"]["pid"]  # type: ignore[index]

        assert talker.process.wait(timeout=20) == 0
    assert gone(pid)
    assert [path.name for path in (tmp_path / "root" / "sessions").iterdir()] == [".lock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(talker: Talker, tmp_path: Path, number: signal.Signals) -> None:
    pid = talker.ask("start", number=7)["result"]["pid"]  # type: ignore[index]

    talker.process.send_signal(number)

    assert talker.process.wait(timeout=20) == 1
    assert gone(pid)
    assert [path.name for path in (tmp_path / "root" / "sessions").iterdir()] == [".lock"]


def test_workers_die_with_an_agent_that_is_killed(talker: Talker) -> None:
    pid = talker.ask("start", number=7)["result"]["pid"]  # type: ignore[index]

    talker.process.kill()

    assert gone(pid)


def test_what_arrives_damaged_is_refused_and_removed(talker: Talker, tmp_path: Path) -> None:
    path = tmp_path / "root" / "files" / "x" / "model.plan"
    talker.ask("put", path=str(path), size=5)
    talker.send(Frame(head={"piece": True}, body=b"wrong"))

    answer = talker.ask("put_end", sha256="0" * 64)

    assert answer["error_class"] == "DeviceError"
    assert str(answer["error"]).startswith(f"{path}: expected sha256 000000000000…, ")
    assert answer["hint"] == "send it again"
    assert list(path.parent.iterdir()) == []


def test_half_a_file_goes_with_the_connection(talker: Talker, tmp_path: Path) -> None:
    talker.ask("put", path=str(tmp_path / "root" / "files" / "x" / "model.plan"), size=5)
    talker.send(Frame(head={"piece": True}, body=b"ha"))
    assert talker.process.stdin is not None
    talker.process.stdin.close()

    assert talker.process.wait(timeout=20) == 0
    assert list((tmp_path / "root" / "files" / "x").iterdir()) == []


def test_half_a_file_of_an_agent_that_was_killed_goes_at_the_next_start(tmp_path: Path) -> None:
    with contextlib.closing(Talker(tmp_path / "root", 60)) as first:
        first.ask("put", path=str(tmp_path / "root" / "files" / "x" / "model.plan"), size=5)
    assert len(list((tmp_path / "root" / "files" / "x").iterdir())) == 1

    with contextlib.closing(Talker(tmp_path / "root", 60)):
        assert list((tmp_path / "root" / "files" / "x").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(talker: Talker, tmp_path: Path) -> None:
    (tmp_path / "root" / "file").write_bytes(b"")

    answer = talker.ask("put", path=str(tmp_path / "root" / "file" / "x" / "model.plan"), size=5)

    assert answer["error"] == f"{tmp_path}/root/file/x: Not a directory"


def test_a_worker_there_answers_as_one_here(talker: Talker) -> None:
    talker.ask("start", number=7)
    talker.send(Frame(head={"worker": 7}, body=b'{"op": "sing", "arguments": {}}\n'))

    frame = talker.reader.read_frame()

    with Child() as child, pytest.raises(Exception, match="no operation is called 'sing'"):
        child.ask("sing", "x")
    assert frame is not None
    assert b"no operation is called 'sing'" in frame.body
