"""Reading of a machine's gauges from a worker of its own, while engines are timed in others. Changes nothing there."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy_kit.base.errors import DeviceError, EngineCrashError
from deploy_kit.devices.links import Worker
from deploy_kit.measure import energy, validity
from deploy_kit.measure.hardware_peaks import MeasuredPeak
from deploy_kit.records import codec
from deploy_kit.records.readings import Conditions, Energy, MonitorSettings, Processor, Snapshot

PERIOD_S = 0.25  # a reading costs a few ms, and Tegra updates its power rails less often
_ABOUT = "gauges"


@dataclass(kw_only=True)
class Monitor:
    """Gauges of one machine, and their readings in the turns of each engine.

    Attributes:
        worker: Worker that reads the gauges.
        watched: What the gauges of the machine can and cannot read.
        own: Process ids of the workers whose load is deploykit's own.
        cost: Share of one core in 0..1 that reading has taken so far.
        turns: Snapshots of each turn, by the name of the engine.
        idle: Snapshots of the idle machine.
        whole_run: The snapshot from when the last worker was counted as own, and the newest one.
    """

    worker: Worker
    watched: MonitorSettings
    own: list[int] = field(default_factory=list)
    cost: float = 0.0
    turns: dict[str, list[list[Snapshot]]] = field(default_factory=dict)
    idle: list[Snapshot] = field(default_factory=list)
    whole_run: list[Snapshot] = field(default_factory=list)

    def read_snapshots(self) -> list[Snapshot]:
        """Return all snapshots since the last call, the last of them taken now."""
        answer = self.worker.ask("read_gauges", _ABOUT, own=self.own)
        self.cost = float(answer["cost"])
        snapshots = [codec.from_json(Snapshot, data) for data in answer["snapshots"]]
        self.whole_run = [*self.whole_run[:1], snapshots[-1]]
        return snapshots

    def count_as_own(self, worker: Worker) -> None:
        """Count the load of this worker as deploykit's own from now on."""
        self.own.append(int(worker.ask("process", _ABOUT)["pid"]))
        self.read_snapshots()
        self.whole_run.clear()  # the counter of own time has jumped by what the worker took before
        self.read_snapshots()

    def record_idle(self, seconds: float) -> None:
        """Read the gauges of the idle machine for `seconds`."""
        self.idle = self.read_snapshots()[-1:]
        time.sleep(seconds)
        self.idle += self.read_snapshots()

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Read the gauges just before, during and just after a turn of the engine called `key`."""
        with self.recording() as snapshots:
            yield
        self.turns.setdefault(key, []).append(snapshots)

    @contextmanager
    def recording(self) -> Iterator[list[Snapshot]]:
        """Yield a list that holds the snapshots from just before to just after the block, once the block has ended."""
        snapshots = self.read_snapshots()[-1:]  # those before it belong to the pause between two turns
        yield snapshots
        snapshots += self.read_snapshots()

    def judge(self, key: str, processor: Processor) -> tuple[tuple[str, ...], Conditions | None]:
        """Judge the turns of an engine.

        Args:
            key: Name of the engine.
            processor: Processor that the engine runs on.

        Returns:
            Reasons why its numbers must not be used, and the conditions; None where it had no turn.
        """
        turns = self.turns.get(key)
        if not turns:
            return (), None
        self._complete_run()
        return validity.judge_validity(turns, processor, self.watched, self.cost, self.whole_run)

    def _complete_run(self) -> None:
        """Read on until the whole run is long enough to be judged."""
        lacking_s = validity.MIN_TIMED_S - (self.whole_run[-1].at_s - self.whole_run[0].at_s)
        if lacking_s > 0:
            time.sleep(lacking_s)
            with contextlib.suppress(DeviceError, EngineCrashError):  # a device that was lost is judged by what it said
                self.read_snapshots()

    def energy_of(self, busy: list[Snapshot], *, runs: int, batch: int) -> Energy:
        """Return the energy of `runs` inferences within the snapshots `busy`, with the idle power subtracted."""
        return energy.energy_of_engine(self.idle, busy, runs=runs, batch=batch, watched=self.watched)

    def measure_peak(self) -> MeasuredPeak:
        """Measure the peak rates of the machine's cores."""
        answer = self.worker.ask("measure_roof", _ABOUT)
        return MeasuredPeak(flop_s=float(answer["flop_s"]), bandwidth_b_s=float(answer["bandwidth_b_s"]))


def start_monitor(worker: Worker, *, period_s: float = PERIOD_S, root: str = "/") -> Monitor:
    """Start reading the gauges of a machine.

    Args:
        worker: Worker on the machine; it is used for nothing else from now on.
        period_s: Time between two readings in seconds.
        root: Folder below which the gauges read: ``/``, or a recorded tree.
    """
    answer = worker.ask("watch_gauges", _ABOUT, period_s=period_s, root=root)
    return Monitor(worker=worker, watched=codec.from_json(MonitorSettings, answer["watched"]))
