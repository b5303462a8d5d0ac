"""Watches a machine from a worker of its own while engines are timed in others. Changes nothing there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy_kit.devices.links import Worker
from deploy_kit.measure import energy, validity
from deploy_kit.measure.hardware_peaks import MeasuredPeak
from deploy_kit.records import codec
from deploy_kit.records.readings import Conditions, Energy, Processor, Snapshot, Watched

PERIOD_S = 0.25  # Tegra's own clock of rails is slower, and a reading costs a few ms
_ABOUT = "gauges"


@dataclass(kw_only=True)
class Monitor:
    """The gauges of one machine, and what they said in the turns of each engine."""

    worker: Worker
    watched: Watched
    own: list[int] = field(default_factory=list)
    cost: float = 0.0
    turns: dict[str, list[list[Snapshot]]] = field(default_factory=dict)
    idle: list[Snapshot] = field(default_factory=list)

    def read(self) -> list[Snapshot]:
        """Give all snapshots since the last call, and one of now."""
        answer = self.worker.ask("read_gauges", _ABOUT, own=self.own)
        self.cost = float(answer["cost"])
        return [codec.from_json(Snapshot, data) for data in answer["snapshots"]]

    def adopt(self, worker: Worker) -> None:
        """Count the load of this worker as our own."""
        self.own.append(int(worker.ask("process", _ABOUT)["pid"]))
        self.read()

    def rest(self, seconds: float) -> None:
        """Read the gauges of the idle machine for so long."""
        self.idle = self.read()[-1:]
        time.sleep(seconds)
        self.idle += self.read()

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Read the gauges just before and just after a turn of the engine called `key`, and within it."""
        with self.reading() as snapshots:
            yield
        self.turns.setdefault(key, []).append(snapshots)

    @contextmanager
    def reading(self) -> Iterator[list[Snapshot]]:
        """Give a list that holds the snapshots from just before to just after the block once it ended."""
        snapshots = self.read()[-1:]
        yield snapshots
        snapshots += self.read()

    def judged(self, key: str, processor: Processor) -> tuple[tuple[str, ...], Conditions | None]:
        """Judge the turns of an engine: why its numbers must not be used, and the conditions; None without a turn."""
        turns = self.turns.get(key)
        return validity.judge_validity(turns, processor, self.watched, self.cost) if turns else ((), None)

    def energy_of(self, busy: list[Snapshot], *, runs: int, batch: int) -> Energy:
        """Give what `runs` inferences within these snapshots cost, idle subtracted."""
        return energy.energy_of_engine(self.idle, busy, runs=runs, batch=batch, watched=self.watched)

    def roof(self) -> MeasuredPeak:
        """Measure what the cores can do."""
        answer = self.worker.ask("measure_roof", _ABOUT)
        return MeasuredPeak(flop_s=float(answer["flop_s"]), bandwidth_b_s=float(answer["bandwidth_b_s"]))


def start_monitor(worker: Worker, *, period_s: float = PERIOD_S, root: str = "/") -> Monitor:
    """Start to read the gauges.

    Args:
        worker: Of the machine, and used for nothing else from now on.
        period_s: Between two readings.
        root: Below which the gauges read.
    """
    answer = worker.ask("watch_gauges", _ABOUT, period_s=period_s, root=root)
    return Monitor(worker=worker, watched=codec.from_json(Watched, answer["watched"]))
