"""Records of a machine's state while engines are timed: gauge readings, conditions, energy, roofline. All frozen."""

from dataclasses import dataclass
from typing import Literal

ReadingKind = Literal[
    "clock_mhz",  # momentary clock
    "temperature_c",  # momentary temperature
    "throttle_flag",  # nonzero while the machine is throttled
    "throttle_count",  # counter of throttle events
    "energy_uj",  # counter
    "power_mw",  # momentary power
    "busy_s",  # counter of the processor time of all processes
    "own_s",  # counter of the processor time of deploykit's own processes
    "steal_s",  # counter of the processor time that a hypervisor gave to other guests
    "load",  # one-minute load average
    "quota_s",  # counter of the time for which a CPU quota held processes back, summed over the cores
]
"""Quantity and unit of a reading."""
Processor = Literal["cpu", "gpu"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One value that a gauge read.

    Attributes:
        gauge: Name of the gauge in the catalogue.
        what: Source of the value as the machine names it, e.g. ``cpu0``, ``VDD_IN`` or ``tj-thermal``.
        kind: Quantity and unit of the value.
        value: The value, in the unit of `kind`.
        wraps_at: Value at which a counter wraps around to 0; 0 where it does not wrap, or where the range is not known.
        processor: Processor that a clock belongs to, by which its engines are judged; None for another clock.
    """

    gauge: str
    what: str
    kind: ReadingKind
    value: float
    wraps_at: float = 0.0
    processor: Processor | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All readings at one moment.

    Attributes:
        at_s: Time of the readings in seconds on the machine's monotonic clock.
        readings: Readings of all gauges.
    """

    at_s: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """Identity of a board, and the clocks that its power mode allows.

    Attributes:
        model: Model in the device tree; empty on a PC.
        compatible: Compatible strings of the device tree, the most specific first.
        memory_gib: Memory of the machine in GiB.
        cores: Number of logical cores that a process may use.
        gpu_max_mhz: Highest GPU clock in MHz that the power mode in force allows; 0 where it is not known.
        gpu_tpc_mask: Bit mask of the GPU's texture processing clusters that the power mode switches off.
        memory_max_mhz: Highest memory clock in MHz that the power mode in force allows; 0 where it is not known.
    """

    model: str
    compatible: tuple[str, ...]
    memory_gib: float
    cores: int
    gpu_max_mhz: float
    gpu_tpc_mask: int = 0
    memory_max_mhz: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """What the gauges of a machine can and cannot read.

    Attributes:
        settings: (name, value) of the machine's settings, e.g. governor and power mode.
        unreadable: (gauge, reason) for each gauge that reads nothing on this machine.
        advice: Commands that an administrator may run to steady the machine; deploykit never runs them.
        board: Identity of the board.
        energy_gauges: Gauges that give energies or powers, whether or not they can read them on this machine.
    """

    settings: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    board: Board
    energy_gauges: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuantityCourse:
    """Course of one quantity before, during and after the turns of an engine.

    Attributes:
        what: Name of the quantity, e.g. ``clock of the fastest core``.
        unit: Unit of the values; empty for a number without one.
        before: Value before the first turn.
        low: Smallest value within the turns.
        high: Largest value within the turns.
        after: Value after the last turn.
    """

    what: str
    unit: str
    before: float
    low: float
    high: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions under which an engine was timed.

    Attributes:
        settings: (name, value) of the machine's settings.
        courses: Clocks, temperature and load before, during and after the turns.
        foreign: Share in 0..1 of the cores' time taken by other processes and by a hypervisor's other guests; None
            where it is not known.
        timed_s: Wall time of the engine's turns in seconds.
        foreign_s: Wall time in seconds over which `foreign` was taken: that of the turns, or where these were too short
            for it that of the whole run; 0 in records of deploykit 0.1.
        held_back: Seconds for which a CPU quota held the container back, summed over the cores, as a share of the time
            that `foreign` was taken over; None where no group counts them.
        unjudged: Validity rules that could not be applied, each with the reason.
        advice: Commands that an administrator may run to steady the machine; empty where the numbers are valid.
        own_cost: Share of one core in 0..1 that reading the gauges took.
    """

    settings: tuple[tuple[str, str], ...]
    courses: tuple[QuantityCourse, ...]
    foreign: float | None
    timed_s: float
    unjudged: tuple[str, ...]
    advice: tuple[str, ...]
    own_cost: float
    foreign_s: float = 0.0
    held_back: float | None = None


@dataclass(frozen=True, kw_only=True)
class Rail:
    """Energy that one power rail or energy counter recorded while an engine ran.

    Attributes:
        name: Name of the rail or counter on the machine.
        gauge: Name of the gauge that read it.
        joules: Energy in J while the engine ran, including the idle power.
        seconds: Wall time in seconds.
        idle_w: Mean power in W before the first engine was loaded.
        rate_hz: Readings per second.
        runs: Number of inferences in that time.
        batch: Images per inference.
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
        """Energy above idle in J."""
        return self.joules - self.idle_w * self.seconds

    @property
    def mj_per_inference(self) -> float:
        """Energy above idle per image in mJ."""
        return 1000 * self.net_joules / (self.runs * self.batch)

    @property
    def inferences_per_joule(self) -> float | None:
        """Images per joule above idle, which equals images per second per watt; None where idle drew as much power."""
        return self.runs * self.batch / self.net_joules if self.net_joules > 0 else None


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of an engine by rail, or the reason why it was not measured; a rail that was not read is absent, never 0.

    Attributes:
        rails: Energy of each rail. Rails may overlap, so they must not be added up.
        why: Why nothing was measured; empty where there are rails.
    """

    rails: tuple[Rail, ...] = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Roof:
    """Roofline estimate of the least time that a device could need for one run, and the numbers it is made from.

    Attributes:
        device: Name of the device or processor.
        processor: Processor of the device that computes: ``cpu`` or ``gpu``.
        precision: Precision of the products.
        basis: Whether the peak rate was measured, computed from the clock in force, or taken from a datasheet.
        source: Datasheet, or the way in which the rate was computed or measured.
        peak_ops_s: Peak rate of dense operations per second; a multiply-accumulate counts as two.
        bandwidth_b_s: Memory bandwidth in bytes per second.
        macs: Multiply-accumulates of a run.
        moved_bytes: Bytes of the weights and of all that convolutions and matrix products read and write, each once.
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
        """Time in ms for the products alone."""
        return 2e3 * self.macs / self.peak_ops_s

    @property
    def memory_ms(self) -> float:
        """Time in ms for the memory traffic alone."""
        return 1e3 * self.moved_bytes / self.bandwidth_b_s

    @property
    def floor_ms(self) -> float:
        """Least time in ms: the larger of `compute_ms` and `memory_ms`."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound_by(self) -> Literal["compute", "memory"]:
        """Which of the two times is the larger one."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"

    def share(self, latency_ms: float) -> float:
        """Return the share of the roof that a latency in ms reaches; above 1 the estimate of the roof is too low."""
        return self.floor_ms / latency_ms
