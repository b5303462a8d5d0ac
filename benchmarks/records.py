"""What the modes find out: frozen records that go to JSON and back, raw samples and environment included."""

from dataclasses import dataclass

from benchmarks.ratios import Samples
from deploy_kit.records.measurements import Environment


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """When, where and how a section was measured.

    Attributes:
        command: What repeats it.
        when: UTC time, ISO 8601.
        seconds: How long it took.
        environment: The machine as it was at the start.
        load_after: Its one-minute load average at the end: the bench's own, and what else ran beside it.
    """

    command: str
    when: str
    seconds: float
    environment: Environment
    load_after: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One candidate of a race.

    Attributes:
        name: The candidate.
        engine: Its engine.
        ours: Whether deploykit made the file.
        int8: Whether the file is quantized to 8 bits.
        size_bytes: Size of its file or files; 0 where there is none.
        settings: (setting, value) that the engine ran with.
        samples_ms: Every timed run, by recompile, round and run; of two streams, ms per image.
        why: Why there are no samples; empty where there are.
    """

    name: str
    engine: str
    ours: bool
    int8: bool
    size_bytes: int = 0
    settings: tuple[tuple[str, str], ...] = ()
    samples_ms: Samples = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Race:
    """Candidates measured in turns.

    Attributes:
        title: The section's heading.
        subject: The net and its input.
        batch: Images per run.
        streams: Runs at the same time, each with a share of the threads.
        threads: In all.
        rounds: Turns of each candidate in one process.
        runs: Timed runs of a turn.
        recompiles: Processes, each of which loads every file anew.
        calibration_images: That quantizers saw, at most.
        seed: Seed of the order of turns.
        entries: The candidates.
    """

    title: str
    subject: str
    batch: int
    streams: int
    threads: int
    rounds: int
    runs: int
    recompiles: int
    calibration_images: int
    seed: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Races:
    """The races of one section."""

    races: tuple[Race, ...]
