"""The nouns of a bench: the machine, the samples, what LoadGen says, how two compare. All frozen.

Every sample is kept; percentiles, throughput and verdicts are derived from them.
"""

import math
from dataclasses import dataclass
from typing import Literal

from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.readings import Conditions, Energy, Roof

LOADED_TWICE = 0.02
"""One file in two processes: up to this apart, and by more than its rounds show, in 3 of 12 pairs measured."""
_CONSTRAINTS = "Performance constraints satisfied"
LatencySpan = Literal["compute", "whole"]
# Stands beside every time that an emulator took: real results, but not the machine's times, so never compared.
EMULATED = "emulated: not a measurement"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine a number was measured on, and how it was set.

    Attributes:
        host: Operating system, kernel and architecture.
        cpu: Model name.
        isa: Instruction sets that matter for inference, e.g. ``avx512_vnni``.
        cores: Logical cores this process may use.
        memory_gib: Of the machine.
        governor: Clock governor; empty where the machine does not say.
        clock_mhz: Current clock of the first core; 0 where the machine does not say.
        load: One-minute load average.
        gpu: NVIDIA GPU and driver; empty if there is none.
        virtual: Whether the processor says it runs under a hypervisor.
        versions: (library, version).
        board: Model in the device tree; empty where there is none.
        l4t: Jetson Linux release, e.g. ``36.4.3``; empty on other machines.
        jetpack: Version of JetPack, likewise.
        tensorrt: Version of the system's TensorRT, likewise.
        power_mode: Name of nvpmodel's mode, likewise.
        cuda_capability: Of the NVIDIA GPU; a measurement's machine says it of a Jetson only.
        free_memory_gib: What a new process could have without swapping; 0 where the machine does not say.
        cpu_limit: Processors whose time the container may use up, e.g. 1.5; 0 without a limit.
        memory_limit_gib: Memory that the container may use; 0 without a limit.
        emulated: What plays this machine, e.g. ``qemu-aarch64-static``; empty for a real one.
    """

    host: str
    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_gib: float
    governor: str
    clock_mhz: float
    load: float
    gpu: str
    virtual: bool
    versions: tuple[tuple[str, str], ...]
    board: str = ""
    l4t: str = ""
    jetpack: str = ""
    tensorrt: str = ""
    power_mode: str = ""
    cuda_capability: str = ""
    free_memory_gib: float = 0.0
    cpu_limit: float = 0.0
    memory_limit_gib: float = 0.0
    emulated: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceTimes:
    """What the device itself timed of each sample, in ms; what the host waited for it is in the samples.

    Attributes:
        compute_ms: Computing alone.
        h2d_ms: Copying in; empty for span ``compute``.
        d2h_ms: Copying out; empty for span ``compute``.
    """

    compute_ms: tuple[float, ...]
    h2d_ms: tuple[float, ...] = ()
    d2h_ms: tuple[float, ...] = ()

    def cut(self, begin: int, end: int) -> "DeviceTimes":
        """Give the times of some samples."""
        compute, h2d, d2h = (times[begin:end] for times in (self.compute_ms, self.h2d_ms, self.d2h_ms))
        return DeviceTimes(compute_ms=compute, h2d_ms=h2d, d2h_ms=d2h)


@dataclass(frozen=True, kw_only=True)
class LoadCost:
    """What an engine (with several streams: all its sessions) cost before its first steady run, in a fresh process.

    Attributes:
        load_ms: From the engine's file to a session that can run; importing the engine's package is not in it.
        first_ms: The first run, which may still compile or reserve memory.
        memory_before_mib: Host memory of the process before it loads: interpreter, numpy and the engine's package.
        peak_memory_mib: The most host memory it had held when its warm-up ended.
    """

    load_ms: float
    first_ms: float
    memory_before_mib: int
    peak_memory_mib: int


@dataclass(frozen=True, kw_only=True)
class LoadGenResult:
    """What MLPerf's LoadGen says of one test.

    Attributes:
        valid: Its VALID or INVALID, by its own rules and the settings it was given.
        sentence: Its recommendation or early-stopping text, word for word.
        version: Of ``mlcommons-loadgen``.
        summary: (what, value) of the lines of its summary, in order.
    """

    valid: bool
    sentence: str
    version: str
    summary: tuple[tuple[str, str], ...]

    @property
    def judges_latency(self) -> bool:
        """Whether LoadGen held the latency against a budget itself, as in scenario ``server``."""
        return _CONSTRAINTS in dict(self.summary)

    @property
    def over_budget(self) -> bool:
        """Whether it is INVALID because the latency budget was not kept: an answer, and no fault of the test."""
        return dict(self.summary).get(_CONSTRAINTS) == "NO"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one engine at one batch.

    Attributes:
        artifact: sha256 of the engine.
        label: Its name in tables.
        batch: Images per run.
        span: ``compute`` times `run` alone; ``whole`` copying in and out too.
        samples_ms: Every timed run (of a LoadGen scenario: query), in order of its end.
        rounds: Index of the first sample of each interleaved round.
        warmup_runs: Runs before the first sample.
        steady: Whether the warm-up became steady before its limit.
        settings: (setting, value) the engine ran with, e.g. threads and inference precision.
        environment: The machine.
        when: UTC time, ISO 8601.
        scenario: How runs were issued; an entry of the catalogue of scenarios.
        streams: Sessions that ran at the same time.
        starts_ms: When each sample began, since the first of the bench.
        h2d_ms: Of each sample, what copying in took; empty for span ``compute``.
        d2h_ms: Of each sample, what copying out took; empty for span ``compute``.
        device: Of each sample, what the device says it took; None where it times nothing.
        round_s: Wall time of each round, in seconds.
        drift: What moved over the rounds, in words; empty where the latency was steady.
        stopped: Why rounds are missing, e.g. a lost connection; empty where none is.
        resumed_at: Rounds before which it was taken up again.
        invalid: Why the numbers must not be used; empty where they may be.
        loadgen: Of a LoadGen scenario.
        conditions: What the gauges of the machine saw while it was timed.
        energy: What it cost, by rail, or why that was not measured.
        roof: The least time that the device could need, an estimate.
        cost: What loading it cost; None where that is not known.
        profile: Where its time goes, layer by layer; None where that was not asked for.
    """

    artifact: str
    label: str
    batch: int
    span: LatencySpan
    samples_ms: tuple[float, ...]
    rounds: tuple[int, ...]
    warmup_runs: int
    steady: bool
    settings: tuple[tuple[str, str], ...]
    environment: Environment
    when: str
    scenario: str = "closed-loop"
    streams: int = 1
    starts_ms: tuple[float, ...] = ()
    h2d_ms: tuple[float, ...] = ()
    d2h_ms: tuple[float, ...] = ()
    device: DeviceTimes | None = None
    round_s: tuple[float, ...] = ()
    drift: str = ""
    stopped: str = ""
    resumed_at: tuple[int, ...] = ()
    invalid: tuple[str, ...] = ()
    loadgen: LoadGenResult | None = None
    conditions: Conditions | None = None
    energy: Energy | None = None
    roof: Roof | None = None
    cost: LoadCost | None = None
    profile: LayerProfile | None = None

    def percentile_ms(self, percent: float) -> float | None:
        """Give a percentile of the samples, linearly interpolated.

        Returns:
            Milliseconds; None where the samples are too few for it (`samples_for`).
        """
        ordered = sorted(self.samples_ms)
        if len(ordered) < samples_for(percent):
            return None
        position = (len(ordered) - 1) * percent / 100
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def by_round(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round."""
        ends = (*self.rounds[1:], len(self.samples_ms))
        return tuple(self.samples_ms[a:b] for a, b in zip(self.rounds, ends, strict=True))

    @property
    def compute_ms(self) -> tuple[float, ...]:
        """Of each sample, what `run` took: the sample itself where nothing was copied."""
        if not self.h2d_ms:
            return self.samples_ms
        parts = zip(self.samples_ms, self.h2d_ms, self.d2h_ms, strict=True)
        return tuple(whole - in_ - out for whole, in_, out in parts)

    @property
    def qps(self) -> float:
        """Runs a second over all rounds and streams; 0 where the wall time is not known."""
        return len(self.samples_ms) / sum(self.round_s) if sum(self.round_s) > 0 else 0.0

    @property
    def images_per_s(self) -> float:
        """Images a second: `qps` times the batch."""
        return self.qps * self.batch

    @property
    def starved(self) -> str:
        """Say that the container gives fewer processors than the engine has threads; empty where it does not."""
        threads, limit = dict(self.settings).get("threads", ""), self.environment.cpu_limit
        if not limit or not threads.isdecimal() or int(threads) <= limit:
            return ""
        return (
            f"{self.label} ran {threads} threads on the time of {limit:g} processors, the container's limit: "
            "it is held back in each period, and its latencies jump"
        )

    @property
    def valid(self) -> bool:
        """Whether the numbers may be used."""
        return not self.invalid

    @property
    def emulated(self) -> str:
        """Say what the times are worth where the machine was played by another one; empty on a real one."""
        return EMULATED if self.environment.emulated else ""


def samples_for(percent: float) -> int:
    """Give the samples that a percentile needs: ten beyond it, so 1,000 for p99 and 20 for the median."""
    return math.ceil(10 * 100 / (100 - percent) - 1e-6)


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """How many times faster than the baseline.

    Attributes:
        ratio: Baseline / candidate.
        low: Lower end of the 95 % interval.
        high: Upper end.
        baseline: Label of the baseline.
        interleaved: Whether both took turns in one run; where not, what the machine did in between is in the ratio.
    """

    ratio: float
    low: float
    high: float
    baseline: str
    interleaved: bool = True

    @property
    def noise(self) -> bool:
        """Whether no difference was shown: the interval holds 1, or it is no more than loading a file twice makes."""
        return self.low <= 1 <= self.high or max(self.ratio, 1 / self.ratio) < 1 + LOADED_TWICE

    @property
    def verdict(self) -> str:
        """Say it in words, e.g. ``1.42× faster, CI 1.38–1.47`` or ``within noise, CI 0.99–1.02``."""
        apart = "" if self.interleaved else ", measured apart"
        if math.isinf(self.high):
            return f"{self.ratio:.2f}×, too few rounds for a verdict{apart}"
        if self.noise:
            return f"within noise, CI {self.low:.2f}–{self.high:.2f}{apart}"
        if self.ratio > 1:
            return f"{self.ratio:.2f}× faster, CI {self.low:.2f}–{self.high:.2f}{apart}"
        return f"{1 / self.ratio:.2f}× slower, CI {1 / self.high:.2f}–{1 / self.low:.2f}{apart}"

    def regression(self, percent: float) -> str:
        """Say how much slower it is, where that is shown and more than `percent`; else empty."""
        slower = 100 * (1 / self.ratio - 1)
        if self.noise or slower <= percent:
            return ""
        return f"{slower:.1f} % slower than {self.baseline}, at most {percent:g} % asked for"


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """An engine that exists and could not be run here; never a number."""

    artifact: str
    label: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What `bench` gives.

    Attributes:
        measurements: Of the engines measured in turns, in one run.
        not_run: Engines that this machine cannot run.
        failed: Engines that died or refused on the way; a bench with one is not kept.
    """

    measurements: tuple[Measurement, ...]
    not_run: tuple[NotRun, ...] = ()
    failed: tuple[NotRun, ...] = ()

    @property
    def stopped(self) -> str:
        """Why rounds are missing; empty where none is."""
        return next((m.stopped for m in self.measurements if m.stopped), "")

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why numbers must not be used, each with its engine."""
        return tuple(f"{m.label}: {why}" for m in self.measurements for why in m.invalid)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One engine of two runs.

    Attributes:
        label: Of the candidate.
        batch: Images per run.
        speed_up: Of the candidate over the baseline.
        allowed: Differences of the two runs that were allowed, in words.
    """

    label: str
    batch: int
    speed_up: SpeedUp
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs held against each other.

    Attributes:
        rows: Of the engines that both have.
        baseline_when: UTC time of the first, ISO 8601.
        candidate_when: Of the second.
        alone: Labels that only one of the two has.
    """

    rows: tuple[Compared, ...]
    baseline_when: str
    candidate_when: str
    alone: tuple[str, ...] = ()

    @property
    def caveat(self) -> str:
        """Say what the ratios hold beside the engines."""
        return (
            f"measured apart ({self.baseline_when} and {self.candidate_when}), not in turns: what the machine did "
            "differently is in the ratio, and no interval covers that"
        )
