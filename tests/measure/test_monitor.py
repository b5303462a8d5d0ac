"""The monitor in a worker of its own: it finds load that is not ours, a clock that falls, and what it costs itself."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import sched_getaffinity
from pathlib import Path

import pytest

from deploy_kit.base.errors import StageError
from deploy_kit.devices.isolate import Child
from deploy_kit.measure import monitor
from deploy_kit.records import codec
from deploy_kit.records.readings import Conditions

pytestmark = pytest.mark.usefixtures("alone")
TREE = Path(__file__).parents[1] / "support/trees/orin-nano-super"


@contextmanager
def burning() -> Iterator[None]:
    """Let other processes burn every core."""
    code = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in sched_getaffinity(0)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.slow
def test_load_of_other_processes_is_found() -> None:
    with Child() as worker:
        running = monitor.start_monitor(worker)
        with burning(), running.turn("one"):
            time.sleep(1.2)

        found = running.judge("one", "cpu")

    reasons, conditions = found
    assert conditions is not None
    assert conditions.foreign is not None
    assert conditions.foreign > 0.2
    assert any(reason.startswith("foreign load took") for reason in reasons)


@pytest.mark.slow
def test_load_of_our_own_processes_is_counted_as_ours() -> None:
    with Child() as worker, Child() as engine:
        running = monitor.start_monitor(worker)
        running.count_as_own(engine)
        with running.turn("one"):
            engine.ask("measure_roof", "roof")
        turn = running.turns["one"][0]

    begun, ended = (sum(r.value for r in s.readings if r.kind == "own_s") for s in (turn[0], turn[-1]))
    assert ended - begun > 0.1


@pytest.mark.slow
def test_a_clock_that_falls_in_a_tree_is_found(tmp_path: Path) -> None:
    shutil.copytree(TREE, tmp_path / "root")
    clock = tmp_path / "root/sys/class/devfreq/17000000.gpu/cur_freq"
    clock.write_text("918000000\n")
    with Child() as worker:
        running = monitor.start_monitor(worker, period_s=0.02, root=str(tmp_path / "root"))
        with running.turn("one"):
            time.sleep(0.6)
            clock.write_text("612000000\n")
            time.sleep(0.6)

        found = running.judge("one", "gpu")

    assert found[1] is not None
    assert found[0] == ("the clock fell by 33.3 % while it was timed, from 918 to 612 MHz; at most 5 % is valid",)
    assert found[1].advice == ("sudo nvpmodel -m 2", "sudo jetson_clocks")


@pytest.mark.slow
def test_a_clock_that_stays_is_valid() -> None:
    with Child() as worker:
        running = monitor.start_monitor(worker, period_s=0.02, root=str(TREE))
        with running.turn("one"):
            time.sleep(1.1)

        found = running.judge("one", "gpu")

    assert found[1] is not None
    assert found[0] == ()
    assert dict(found[1].settings)["power mode"] == "25W (1)"


def test_what_reading_costs_is_said() -> None:
    with Child() as worker:
        running = monitor.start_monitor(worker)
        with running.turn("one"):
            time.sleep(0.6)

    assert 0 < running.cost < 0.2


def test_an_engine_without_a_turn_is_not_judged() -> None:
    with Child() as worker:
        assert monitor.start_monitor(worker).judge("none", "cpu") == ((), None)


def test_too_short_an_energy_is_refused() -> None:
    with Child() as worker:
        running = monitor.start_monitor(worker, period_s=0.02, root=str(TREE))
        running.record_idle(0.1)
        with running.recording() as snapshots:
            time.sleep(0.1)

        found = running.energy_of(snapshots, runs=10, batch=1)

    assert found.rails == ()
    assert "energy takes 10 s idle and as many at work" in found.why


def test_gauges_are_not_read_before_they_are_watched() -> None:
    with Child() as worker, pytest.raises(StageError, match="read_gauges was asked for before watch_gauges"):
        worker.ask("read_gauges", "gauges")


@pytest.mark.slow
def test_conditions_come_back_from_json() -> None:
    with Child() as worker:
        running = monitor.start_monitor(worker, period_s=0.02, root=str(TREE))
        with running.turn("one"):
            time.sleep(0.1)
        found = running.judge("one", "gpu")

    assert found[1] is not None
    assert codec.from_json(Conditions, codec.to_json(found[1])) == found[1]
