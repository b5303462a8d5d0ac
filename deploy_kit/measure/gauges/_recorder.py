"""Reads all gauges at a low rate, from a thread of a worker that is not timed itself."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from deploy_kit.measure.gauges import CATALOGUE, Gauge, GaugeScope, tegra
from deploy_kit.measure.gauges._files import read_text
from deploy_kit.records.readings import Board, Reading, Snapshot, Watched


def survey_gauges(place: GaugeScope) -> Watched:
    """Say what the gauges of this machine can read, how it is set, and what an administrator may change."""
    gauges = {name: CATALOGUE.get(name) for name in CATALOGUE.names()}
    unreadable = tuple((name, why) for name, gauge in gauges.items() if (why := gauge.why_unavailable(place)))
    return Watched(
        settings=tuple(pair for gauge in gauges.values() for pair in gauge.settings(place)),
        unreadable=unreadable,
        advice=tuple(command for gauge in gauges.values() for command in gauge.advice(place)),
        board=read_board(place),
    )


def read_board(place: GaugeScope) -> Board:
    """Say which device this is."""
    tree = place.root / "proc/device-tree"
    memory = read_text(place.root / "proc/meminfo").partition("MemTotal:")[2].split()
    return Board(
        model=read_text(tree / "model"),
        compatible=tuple(filter(None, read_text(tree / "compatible").split("\0"))),
        memory_gib=round(int(memory[0]) / 2**20, 1) if memory else 0.0,
        cores=len(place.cores) or os.cpu_count() or 1,
        gpu_max_mhz=tegra.gpu_max_mhz(place),
        gpu_tpc_mask=tegra.gpu_tpc_mask(place),
        memory_max_mhz=tegra.memory_max_mhz(place),
    )


class Recorder:
    """Takes a snapshot every period, and at once when asked."""

    def __init__(self, place: GaugeScope, period_s: float) -> None:
        """Start the thread; gauges that read nothing here are left out from the start."""
        found = (CATALOGUE.get(name) for name in CATALOGUE.names())
        self._gauges: list[Gauge] = [gauge for gauge in found if not gauge.why_unavailable(place)]
        self._place = place
        self._period_s = period_s
        self._lock = threading.Lock()
        self._snapshots: list[Snapshot] = []
        self._begun_s, self._spent_s = time.monotonic(), 0.0
        threading.Thread(target=self._run, daemon=True).start()  # ends with its worker

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._period_s):
            self._snap()

    def _snap(self) -> None:
        begun = time.thread_time()
        with self._lock:
            at_s = time.monotonic()
            readings: list[Reading] = []
            for gauge in self._gauges:
                readings += gauge.read(self._place)
            self._snapshots.append(Snapshot(at_s=at_s, readings=tuple(readings)))
            self._spent_s += time.thread_time() - begun

    def own(self, processes: tuple[int, ...]) -> None:
        """Say whose load is not foreign from now on, beside this process and its parent."""
        with self._lock:
            self._place = replace(self._place, own=(*processes, os.getpid(), os.getppid()))

    def take(self) -> list[Snapshot]:
        """Take one more snapshot; give all since the last call."""
        self._snap()
        with self._lock:
            taken, self._snapshots = self._snapshots, []
        return taken

    @property
    def cost(self) -> float:
        """Share of one core that reading has taken since the start."""
        return self._spent_s / max(time.monotonic() - self._begun_s, 1e-9)


def scope_of_process(root: str) -> GaugeScope:
    """Give the place of this process: its own load and its parent's are not foreign."""
    return GaugeScope(root=Path(root), own=(os.getpid(), os.getppid()), cores=tuple(sorted(os.sched_getaffinity(0))))
