"""Watches a machine from a worker of its own while engines are timed in others. Changes nothing there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy_kit import codec, energy, validity
from deploy_kit.devices import Worker
from deploy_kit.profiles import Measured
from deploy_kit.readings import Conditions, Energy, Processor, Snapshot, Watched

PERIOD_S = 0.25
_ABOUT = "gauges"


@dataclass(kw_only=True)
class Monitor:
    """The gauges of one machine, and what they said in the turns of each engine."""

    worker: Worker
    watched: Watched
    cost: float = 0.0
    turns: dict[str, list[list[Snapshot]]] = field(default_factory=dict)
    idle: list[Snapshot] = field(default_factory=list)

    def read(self) -> list[Snapshot]:
        """Give all snapshots since the last call, and one of now."""
        answer = self.worker.ask("read_gauges", _ABOUT)
        self.cost = float(answer["cost"])
        return [codec.from_json(Snapshot, data) for data in answer["snapshots"]]

    @contextmanager
    def turn(self, label: str) -> Iterator[None]:
        """Read the gauges just before and just after a turn of the engine with this label, and within it."""
        before = self.read()[-1:]
        yield
        self.turns.setdefault(label, []).append([*before, *self.read()])

    def judged(self, label: str, processor: Processor) -> tuple[tuple[str, ...], Conditions] | None:
        """Judge the turns of an engine; None where it had none."""
        turns = self.turns.get(label)
        return validity.judge(turns, processor, self.watched, self.cost) if turns else None

    def energy_of(self, label: str, *, runs: int, batch: int) -> Energy:
        """Give what `runs` inferences of the engine's last turn cost, idle subtracted."""
        return energy.of_engine(self.idle, self.turns[label][-1], runs=runs, batch=batch, watched=self.watched)

    def roof(self) -> Measured:
        """Measure what the cores can do."""
        answer = self.worker.ask("measure_roof", _ABOUT)
        return Measured(flop_s=float(answer["flop_s"]), bandwidth_b_s=float(answer["bandwidth_b_s"]))


def started(worker: Worker, own: tuple[int, ...], *, period_s: float = PERIOD_S, root: str = "/") -> Monitor:
    """Start to read the gauges.

    Args:
        worker: Of the machine, and used for nothing else from now on.
        own: Processes there whose load is no foreign load.
        period_s: Between two readings.
        root: Below which the gauges read.
    """
    answer = worker.ask("watch_gauges", _ABOUT, own=list(own), period_s=period_s, root=root)
    return Monitor(worker=worker, watched=codec.from_json(Watched, answer["watched"]))


def own_process(worker: Worker) -> int:
    """Ask a worker for its process id on its machine."""
    return int(worker.ask("process", _ABOUT)["pid"])
