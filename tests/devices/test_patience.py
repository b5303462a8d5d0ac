"""Waits for a worker: one that is stopped or hangs is given up by its name, one that works is waited for."""

import os
import signal
import sys

import pytest

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.base.progress import ProgressEvent, no_progress
from deploy_kit.devices import patience
from deploy_kit.devices.isolate import Child
from deploy_kit.devices.patience import Life, Watch, life_of

SILENT = "import sys, time\nsys.stdin.readline()\ntime.sleep(600)\n"
BUSY = """
import sys, time
from deploy_kit.devices import protocol
sys.stdin.readline()
end = time.monotonic() + 1.0
while time.monotonic() < end: pass
sys.stdout.write(protocol.reply_line(protocol.Reply(result={"done": True})))
sys.stdout.flush()
sys.stdin.readline()
"""


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All limits in tenths of a second."""
    monkeypatch.setattr(patience, "LOOK_S", 0.05)
    monkeypatch.setattr(patience, "STOPPED_S", 0.4)
    monkeypatch.setattr(patience, "IDLE_S", 0.4)
    monkeypatch.setattr(patience, "SAY_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_stopped_is_given_up() -> None:
    with Child(python(SILENT)) as child:
        os.kill(child._process.pid, signal.SIGSTOP)
        with pytest.raises(EngineCrashError) as caught:
            child.ask("infer", "model.onnx")

    assert str(caught.value) == (
        "model.onnx: the worker process was stopped by a signal for 0.4 s in 'infer' and was ended"
    )
    assert child._process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_is_given_up() -> None:
    with Child(python(SILENT)) as child, pytest.raises(EngineCrashError) as caught:
        child.ask("build", "model.onnx")

    assert (
        str(caught.value) == "model.onnx: the worker process took no processor time for 0.4 s in 'build' and was ended"
    )
    assert "hangs" in caught.value.hint


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_computes_is_waited_for_and_the_wait_is_said() -> None:
    said: list[ProgressEvent] = []
    with Child(python(BUSY)) as child:
        assert child.ask("build", "model.onnx", on_progress=said.append) == {"done": True}

    assert said
    assert said[0].text == "waiting for 'build' of model.onnx for 0 s; it is at work"


def test_a_device_is_named() -> None:
    lines = iter([None, None, "reply\n"])
    said: list[ProgressEvent] = []
    watch = Watch("time", "model.plan", lambda: Life(stopped=True, cpu_s=1.0), said.append, at="orin", look_s=6.0)

    assert watch.next_line(lambda _: next(lines)) == "reply\n"
    assert [event.text for event in said] == [
        "waiting for 'time' of model.plan on orin for 0 s; it is stopped by a signal"
    ]


def test_where_nothing_is_seen_of_a_process_it_is_waited_for() -> None:
    lines = iter([*[None] * 1000, "reply\n"])

    assert Watch("time", "model.plan", lambda: None, no_progress).next_line(lambda _: next(lines)) == "reply\n"


def test_a_process_that_stops_for_a_moment_starts_anew() -> None:
    looks = iter([True] * 20 + [False] + [True] * 20)
    lines = iter([*[None] * 41, "reply\n"])
    ticks = iter(range(100))
    watch = Watch("a", "b", lambda: Life(stopped=next(looks), cpu_s=next(ticks)), no_progress)

    assert watch.next_line(lambda _: next(lines)) == "reply\n"


def test_this_process_lives() -> None:
    life = life_of(os.getpid())

    assert life is not None
    assert (life.stopped, life.cpu_s > 0) == (False, True)


def test_a_process_that_is_gone_has_no_life() -> None:
    assert life_of(2**22 + 1) is None
