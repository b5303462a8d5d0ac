"""Reading of all gauges at a low rate, from a thread of a worker that is not timed itself."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from deploy_kit.measure.gauges import CATALOGUE, Gauge, GaugeScope, tegra
from deploy_kit.measure.gauges._files import read_text
from deploy_kit.records.readings import Board, MonitorSettings, Reading, Snapshot


def survey_gauges(scope: GaugeScope) -> MonitorSettings:
    """Describe what the gauges can read, how the machine is set, and what an administrator may change."""
    gauges = {name: CATALOGUE.get(name) for name in CATALOGUE.names()}
    unreadable = tuple((name, why) for name, gauge in gauges.items() if (why := gauge.why_unavailable(scope)))
    return MonitorSettings(
        settings=tuple(pair for gauge in gauges.values() for pair in gauge.settings(scope)),
        unreadable=unreadable,
        advice=tuple(command for gauge in gauges.values() for command in gauge.advice(scope)),
        board=read_board(scope),
        energy_gauges=tuple(name for name, gauge in gauges.items() if gauge.measures_energy),
    )


def read_board(scope: GaugeScope) -> Board:
    """Read the identity of the board."""
    tree = scope.root / "proc/device-tree"
    memory = read_text(scope.root / "proc/meminfo").partition("MemTotal:")[2].split()
    return Board(
        model=read_text(tree / "model"),
        compatible=tuple(filter(None, read_text(tree / "compatible").split("\0"))),
        memory_gib=round(int(memory[0]) / 2**20, 1) if memory else 0.0,
        cores=len(scope.cores) or os.cpu_count() or 1,
        gpu_max_mhz=tegra.gpu_max_mhz(scope),
        gpu_tpc_mask=tegra.gpu_tpc_mask(scope),
        memory_max_mhz=tegra.memory_max_mhz(scope),
    )


class Recorder:
    """Takes a snapshot of all gauges every period, and one at each request."""

    def __init__(self, scope: GaugeScope, period_s: float) -> None:
        """Start the thread; gauges that read nothing on this machine are left out from the start."""
        gauges = (CATALOGUE.get(name) for name in CATALOGUE.names())
        self._gauges: list[Gauge] = [gauge for gauge in gauges if not gauge.why_unavailable(scope)]
        self._scope = scope
        self._period_s = period_s
        self._lock = threading.Lock()
        self._snapshots: list[Snapshot] = []
        self._begun_s, self._spent_s = time.monotonic(), 0.0
        threading.Thread(target=self._run, daemon=True).start()  # a daemon: it ends with its worker

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
                readings += gauge.read(self._scope)
            self._snapshots.append(Snapshot(at_s=at_s, readings=tuple(readings)))
            self._spent_s += time.thread_time() - begun

    def set_own(self, processes: tuple[int, ...]) -> None:
        """Set the processes whose load is deploykit's own from now on, beside this process and its parent."""
        with self._lock:
            self._scope = replace(self._scope, own=(*processes, os.getpid(), os.getppid()))

    def take(self) -> list[Snapshot]:
        """Take one more snapshot and return all since the last call."""
        self._snap()
        with self._lock:
            snapshots, self._snapshots = self._snapshots, []
        return snapshots

    @property
    def cost(self) -> float:
        """Share of one core in 0..1 that reading has taken since the start."""
        return self._spent_s / max(time.monotonic() - self._begun_s, 1e-9)


def scope_of_process(root: str) -> GaugeScope:
    """Return the scope of this process: its cores, with its own load and its parent's as deploykit's own."""
    return GaugeScope(root=Path(root), own=(os.getpid(), os.getppid()), cores=tuple(sorted(os.sched_getaffinity(0))))
