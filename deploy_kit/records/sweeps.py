"""Records of a sweep: its cells with their results, what was chosen from them, and the plan before."""

from dataclasses import dataclass
from typing import Literal

from deploy_kit.records.measurements import Environment
from deploy_kit.records.recommendation import Loser
from deploy_kit.records.results import EngineRow, StageTime

CellState = Literal["done", "failed", "left out", "not run"]


@dataclass(frozen=True, kw_only=True)
class RandomCheckpoint:
    """A network of the paper with random weights, kept in the store.

    Attributes:
        path: Its file within the store.
        sha256: Hash of the file.
    """

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CellName:
    """Place of a cell in the grid.

    Attributes:
        checkpoint: Name of the checkpoint.
        variant: Name of the variant, as the sweep's file has it.
        engine: Name of the engine.
        batch: Images per run.
        device: Name of the device.
    """

    checkpoint: str
    variant: str
    engine: str
    batch: int
    device: str

    @property
    def title(self) -> str:
        """All of it in words, e.g. ``a · int8 · openvino, batch 1, on board``."""
        return f"{self.subject}, batch {self.batch}, on {self.device}"

    @property
    def subject(self) -> str:
        """The part that differs among cells of one device and one batch."""
        return " · ".join((self.checkpoint, self.variant, self.engine))


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """One cell and how it ended.

    Attributes:
        name: Place in the grid.
        state: ``done``: built and checked (the row has the verdict). ``failed``: a stage failed. ``left out``: not
            possible there. ``not run``: the time of the sweep was up.
        why: Reason for every state but ``done``.
        row: The engine with its check and its bench; None where no stage came so far.
        times: Stages of this cell; those that it shares with others are only in the first one's.
        made_s: Seconds that it took when it was made, by this run or the one that left its results.
        random_weights: Whether the checkpoint's weights are random, so that its accuracy means nothing.
        fronts: Pareto fronts of its device and batch that it is on: of latency against ``accuracy`` or ``size``.
        remarks: Sentences that a reader must know beside the numbers.
    """

    name: CellName
    state: CellState
    why: str = ""
    row: EngineRow | None = None
    times: tuple[StageTime, ...] = ()
    made_s: float = 0.0
    random_weights: bool = False
    fronts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SweepChoice:
    """The cell to deploy on one device, at one batch and within one budget.

    Attributes:
        device: Name of the device.
        batch: Images per run.
        wanted: What was looked for, e.g. ``the fastest within latency ≤ 8 ms``.
        winner: ``checkpoint · variant · engine``; empty where no cell qualifies.
        why: What speaks for it, or why there is none, as a sentence.
        losers: Every other cell of the device and batch that has a result.
        open: Whether a cell that is undecided, failed or was not run might have been chosen instead of none.
    """

    device: str
    batch: int
    wanted: str
    winner: str
    why: str
    losers: tuple[Loser, ...]
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Result of a sweep, as ``sweep.json`` has it.

    Attributes:
        sweep: Name of the sweep.
        cells: Every cell of the grid, in its order.
        choices: What is recommended, by device, batch and budget.
        environments: (device, its machine) of each device that could be reached.
        when: Time of the result, UTC in ISO 8601.
        version: Version of deploykit.
        seconds: Duration of this run; what the store had was not made again.
        minutes: Limit of the run's time; None where there was none.
        accuracy: What the accuracy front is told by; empty where cells cannot be compared by accuracy.
        sweep_yaml: The sweep's file.
        form: Version of this record's form.
    """

    sweep: str
    cells: tuple[SweepCell, ...]
    choices: tuple[SweepChoice, ...]
    environments: tuple[tuple[str, Environment], ...]
    when: str
    version: str
    seconds: float
    minutes: float | None = None
    accuracy: str = ""
    sweep_yaml: str = ""
    form: int = 1


@dataclass(frozen=True, kw_only=True)
class CellEstimate:
    """What a cell will probably cost.

    Attributes:
        name: Place in the grid.
        seconds: Estimated time; 0 for a cell that is left out.
        source: Where the number is from.
        left_out: Why the cell is left out; empty where it is run.
    """

    name: CellName
    seconds: float
    source: str
    left_out: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep before it is run.

    Attributes:
        sweep: Name of the sweep.
        cells: Every cell with its estimate.
        by_device: (device, estimated seconds) of its cells; devices work side by side.
    """

    sweep: str
    cells: tuple[CellEstimate, ...]
    by_device: tuple[tuple[str, float], ...]
