"""The nouns of what a machine says of itself while it is timed: readings, conditions, energy, roof. All frozen."""

from dataclasses import dataclass
from typing import Literal

ReadingKind = Literal[
    "clock_mhz",  # of now
    "temperature_c",
    "throttle_flag",  # not 0 while something is held back
    "throttle_count",  # grows each time
    "energy_uj",  # a counter
    "power_mw",  # of now
    "busy_s",  # processor time of all processes, counters all
    "own_s",
    "steal_s",
    "load",  # one-minute load average
]
Processor = Literal["cpu", "gpu"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number that a gauge gave.

    Attributes:
        gauge: The gauge.
        what: Of what, as the machine calls it, e.g. ``cpu0``, ``VDD_IN``, ``tj-thermal``.
        kind: What the number is, with its unit.
        value: The number.
        wraps_at: Where a counter starts anew; 0 where it does not.
    """

    gauge: str
    what: str
    kind: ReadingKind
    value: float
    wraps_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All readings of one moment; `at_s` is the machine's own monotonic clock."""

    at_s: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """What says which device this is, and how fast it may run.

    Attributes:
        model: Of the device tree; empty on a PC.
        compatible: Of the device tree, most exact first.
        memory_gib: Of the machine.
        cores: Logical cores a process may use.
        gpu_max_mhz: The clock that the power mode in force allows the GPU; 0 where it is not said.
        gpu_tpc_mask: A bit for each texture processing cluster of the GPU that the mode switches off.
        memory_max_mhz: The clock that the mode allows the memory; 0 where it is not said.
    """

    model: str
    compatible: tuple[str, ...]
    memory_gib: float
    cores: int
    gpu_max_mhz: float
    gpu_tpc_mask: int = 0
    memory_max_mhz: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the gauges of a machine can and cannot read.

    Attributes:
        settings: (setting, value) of the machine, e.g. governor and power mode.
        unreadable: (gauge, why it reads nothing).
        advice: Commands that an administrator may want to run first; none is ever run by deploykit.
        board: Which device it is.
    """

    settings: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    board: Board


@dataclass(frozen=True, kw_only=True)
class Course:
    """One quantity before, while and after an engine was timed.

    Attributes:
        what: e.g. ``clock of the fastest core``.
        unit: Of the numbers.
        before: Before its first turn.
        low: Least at the end of, or during, a turn.
        high: Most.
        after: After its last turn.
    """

    what: str
    unit: str
    before: float
    low: float
    high: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what conditions an engine was timed.

    Attributes:
        settings: (setting, value) of the machine.
        courses: What moved.
        foreign: Share of the cores' time that other processes, and a hypervisor's other guests, took; None: not known.
        timed_s: Wall time of its turns.
        unjudged: What could not be judged, and why.
        advice: Commands for an administrator.
        own_cost: Share of one core that reading the gauges took.
    """

    settings: tuple[tuple[str, str], ...]
    courses: tuple[Course, ...]
    foreign: float | None
    timed_s: float
    unjudged: tuple[str, ...]
    advice: tuple[str, ...]
    own_cost: float


@dataclass(frozen=True, kw_only=True)
class Rail:
    """Energy that one rail, or one counter, gave while an engine ran.

    Attributes:
        name: As the machine calls it.
        gauge: What read it.
        joules: While the engine ran, idle included.
        seconds: Wall time.
        idle_w: Power before the first engine was loaded.
        rate_hz: Readings a second.
        runs: Inferences in that time.
        batch: Images of one inference.
    """

    name: str
    gauge: str
    joules: float
    seconds: float
    idle_w: float
    rate_hz: float
    runs: int
    batch: int

    @property
    def net_joules(self) -> float:
        """Energy above idle."""
        return self.joules - self.idle_w * self.seconds

    @property
    def mj_per_inference(self) -> float:
        """Energy above idle of one image, in mJ."""
        return 1000 * self.net_joules / (self.runs * self.batch)

    @property
    def inferences_per_joule(self) -> float | None:
        """Images for a joule above idle, which is images a second for a watt; None where idle drew no less."""
        return self.runs * self.batch / self.net_joules if self.net_joules > 0 else None


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What an engine cost in energy: by rail, or why nothing was measured. Never 0 for what was not read."""

    rails: tuple[Rail, ...] = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Roof:
    """The least time that a device could need for one run: an estimate, and the parts it is made from.

    Attributes:
        device: Its profile.
        processor: What of it.
        precision: Of the products.
        basis: Where the rate comes from.
        source: Datasheet, or how it was computed or measured.
        peak_ops_s: Operations a second, dense; a multiply-accumulate is two.
        bandwidth_b_s: Bytes a second from memory.
        macs: Multiply-accumulates of a run.
        moved_bytes: Weights, and what convolutions read and write, each moved once.
    """

    device: str
    processor: Processor
    precision: str
    basis: Literal["measured", "computed", "datasheet"]
    source: str
    peak_ops_s: float
    bandwidth_b_s: float
    macs: int
    moved_bytes: int

    @property
    def compute_ms(self) -> float:
        """Time for the products alone."""
        return 2e3 * self.macs / self.peak_ops_s

    @property
    def memory_ms(self) -> float:
        """Time for the bytes alone."""
        return 1e3 * self.moved_bytes / self.bandwidth_b_s

    @property
    def floor_ms(self) -> float:
        """The greater of the two."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound_by(self) -> Literal["compute", "memory"]:
        """Which of the two it is."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"

    def share(self, latency_ms: float) -> float:
        """Say what share of the roof a latency reaches; above 1 the roof is too low, not the engine too fast."""
        return self.floor_ms / latency_ms
