"""Records of a bench: the machine, every latency sample, LoadGen's result, and how two runs compare. All frozen.

Samples are kept whole; percentiles, throughput and verdicts are properties derived from them.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.readings import Conditions, Energy, Roof

LOADED_TWICE = 0.02
"""Relative difference between two processes that load the same file: up to this, and more than their rounds show, in 3
of 12 pairs measured."""
_CONSTRAINTS = "Performance constraints satisfied"
LatencySpan = Literal["compute", "whole", "frame"]
EMULATED = "emulated: not a measurement"
"""Mark beside every time taken under an emulator: the outputs are real, but the times are not those of the machine."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine on which a number was measured, and how it was set.

    Attributes:
        host: Operating system, kernel release and architecture.
        cpu: Model name of the processor.
        isa: Instruction sets that matter for inference, e.g. ``avx512_vnni``.
        cores: Number of logical cores that this process may use.
        memory_gib: Memory of the machine in GiB.
        governor: Clock governor of the first core; empty where the machine does not report it.
        clock_mhz: Current clock of the first core in MHz; 0 where the machine does not report it.
        load: One-minute load average.
        gpu: NVIDIA GPU and driver; empty if there is none.
        virtual: Whether the processor reports that it runs under a hypervisor.
        versions: (library, version) of the libraries that decide an artifact or a number.
        board: Model of the board in the device tree; empty where there is none.
        l4t: Jetson Linux release, e.g. ``36.4.3``; empty on machines that are not a Jetson.
        jetpack: Version of JetPack; empty on machines that are not a Jetson.
        tensorrt: Version of the system's TensorRT package; empty on machines that are not a Jetson.
        power_mode: Name of the power mode in force; empty on machines that are not a Jetson.
        cuda_capability: Compute capability of the NVIDIA GPU, e.g. ``8.7``; in a measurement only for a Jetson, since
            elsewhere the driver would have to be asked in the process that is timed.
        free_memory_gib: Memory in GiB available to a new process without swapping; 0 where the machine does not report
            it.
        cpu_limit: Number of processors whose time the container may use, e.g. 1.5; 0 without a limit.
        memory_limit_gib: Memory in GiB that the container may use; 0 without a limit.
        emulated: Emulator that this machine runs under, e.g. ``qemu-aarch64-static``; empty on real hardware.
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

    @property
    def identity(self) -> tuple[tuple[str, Any], ...]:
        """(field, value) of everything in which two machines are not the same machine for a latency.

        A kernel, a driver, a power mode or a CPU quota changes latencies as another processor does; only what differs
        from one moment to the next is left out.
        """
        return tuple((field.name, getattr(self, field.name)) for field in fields(self) if field.name not in _MOMENTARY)


_MOMENTARY = frozenset({"clock_mhz", "load", "free_memory_gib"})


@dataclass(frozen=True, kw_only=True)
class DeviceTimes:
    """Times that the device's own clock gives for each sample, e.g. by CUDA events.

    The time for which the host waited is in the measurement's samples.

    Attributes:
        compute_ms: Time of the computation in ms, one value for each sample.
        h2d_ms: Time of the copy to the device in ms; empty for span ``compute``.
        d2h_ms: Time of the copy from the device in ms; empty for span ``compute``.
    """

    compute_ms: tuple[float, ...]
    h2d_ms: tuple[float, ...] = ()
    d2h_ms: tuple[float, ...] = ()

    def cut(self, begin: int, end: int) -> "DeviceTimes":
        """Return the times of the samples `begin` to `end` (exclusive)."""
        compute, h2d, d2h = (times[begin:end] for times in (self.compute_ms, self.h2d_ms, self.d2h_ms))
        return DeviceTimes(compute_ms=compute, h2d_ms=h2d, d2h_ms=d2h)


@dataclass(frozen=True, kw_only=True)
class LoadCost:
    """Cost of loading an engine in a fresh process; with several streams, of all its sessions together.

    Attributes:
        load_ms: Time in ms from the engine's file to a session that can run, without importing the engine's package.
        first_ms: Time in ms of the first run, which may still compile kernels or reserve memory.
        memory_before_mib: Host memory of the process in MiB before it loads the engine: interpreter, numpy and the
            engine's package.
        peak_memory_mib: Largest host memory of the process in MiB by the end of the warm-up.
    """

    load_ms: float
    first_ms: float
    memory_before_mib: int
    peak_memory_mib: int


@dataclass(frozen=True, kw_only=True)
class LoadGenResult:
    """Result of one test by MLPerf's LoadGen.

    Attributes:
        valid: Whether LoadGen calls the result VALID, by its own rules and the settings it was given.
        sentence: LoadGen's recommendations and early-stopping result, verbatim; before them, where the engine could
            not keep up, how many queries were waiting when LoadGen stopped.
        version: Version of ``mlcommons-loadgen``.
        summary: (name, value) of each line of LoadGen's summary, in order.
    """

    valid: bool
    sentence: str
    version: str
    summary: tuple[tuple[str, str], ...]

    @property
    def judges_latency(self) -> bool:
        """Whether LoadGen compared the latency with a budget itself, as in scenario ``server``."""
        return _CONSTRAINTS in dict(self.summary)

    @property
    def over_budget(self) -> bool:
        """Whether the result is INVALID because the latency exceeds the budget: an answer, not a fault of the test."""
        return dict(self.summary).get(_CONSTRAINTS) == "NO"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one engine at one batch size.

    Attributes:
        artifact: sha256 of the engine.
        label: Label of the engine in tables.
        batch: Images per run.
        span: Part of a run that is timed: ``compute`` is the computation alone, ``whole`` includes the copies to and
            from the device, and ``frame`` goes from uint8 pixels in memory to the class: with the normalization by
            numpy, where the engine takes floats, and the largest logit.
        samples_ms: Duration of every timed run (in a LoadGen scenario: of every query; in ``server`` from its scheduled
            time) in ms, in order of its end.
        rounds: Index of the first sample of each round.
        warmup_runs: Number of runs before the first sample.
        steady: Whether the warm-up became steady before its time limit.
        settings: (name, value) of the settings the engine reports, e.g. threads and inference precision.
        environment: Machine on which it was measured.
        when: Time of the measurement, UTC in ISO 8601.
        scenario: Name of the scenario that issued the runs, from the catalogue of scenarios.
        streams: Number of sessions that ran at the same time.
        starts_ms: Start of each sample in ms since the first sample of the bench.
        h2d_ms: Time of each sample's copy to the device in ms, for span ``frame`` with numpy's normalization; empty
            for span ``compute``.
        d2h_ms: Time of each sample's copy from the device in ms, for span ``frame`` with the choice of the class;
            empty for span ``compute``.
        device: Times by the device's own clock; None where the device has none.
        round_s: Wall time of each round in seconds.
        drift: How the latency moved over the rounds, e.g. ``21 % slower from round 8 of 12 on``; empty where no drift
            was shown.
        stopped: Why rounds are missing, e.g. a lost connection; empty where none is missing.
        resumed_at: Number of finished rounds at each time the measurement was resumed.
        invalid: Reasons why the numbers must not be used; empty where they are valid.
        loadgen: Result of LoadGen; None where the scenario does not use it.
        conditions: Readings of the machine's gauges during the turns of this engine; None where nothing was read.
        energy: Energy by rail, or why it was not measured.
        roof: Estimate of the least time that the device could need; None where the device's rates are not known.
        cost: Cost of loading the engine; None where it was not measured.
        profile: Time by layer; None where no profile was requested.
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
        """Return a percentile of the samples, linearly interpolated.

        Args:
            percent: Percentile to compute, from 0 to below 100, e.g. 99 for p99.

        Returns:
            Milliseconds; None where there are fewer samples than the percentile needs (`samples_for`).
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
        """Samples of each round in ms."""
        ends = (*self.rounds[1:], len(self.samples_ms))
        return tuple(self.samples_ms[a:b] for a, b in zip(self.rounds, ends, strict=True))

    @property
    def compute_ms(self) -> tuple[float, ...]:
        """Time of each sample without its copies in ms; the sample itself where nothing was copied."""
        if not self.h2d_ms:
            return self.samples_ms
        parts = zip(self.samples_ms, self.h2d_ms, self.d2h_ms, strict=True)
        return tuple(whole - in_ - out for whole, in_, out in parts)

    @property
    def qps(self) -> float:
        """Runs per second over all rounds and streams; 0 where the wall time is not known."""
        return len(self.samples_ms) / sum(self.round_s) if sum(self.round_s) > 0 else 0.0

    @property
    def images_per_s(self) -> float:
        """Images per second: `qps` times the batch size."""
        return self.qps * self.batch

    @property
    def starved(self) -> str:
        """Warning that the engine has more threads than the container allows processors; empty if it has not."""
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
        """Mark for times taken under an emulator (`EMULATED`); empty on real hardware."""
        return EMULATED if self.environment.emulated else ""


def samples_for(percent: float) -> int:
    """Return the number of samples that a percentile needs: ten beyond it, so 1,000 for p99 and 20 for the median."""
    return math.ceil(10 * 100 / (100 - percent) - 1e-6)


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """Ratio of a baseline's latency to a candidate's.

    Attributes:
        ratio: Latency of the baseline divided by that of the candidate; above 1 the candidate is faster.
        low: Lower end of the ratio's 95 % confidence interval.
        high: Upper end of the ratio's 95 % confidence interval; ``inf`` where there were too few rounds for one.
        baseline: Label of the baseline.
        interleaved: Whether both were measured in turns in one run; if not, the ratio also holds what changed on the
            machine between the two runs.
    """

    ratio: float
    low: float
    high: float
    baseline: str
    interleaved: bool = True

    @property
    def noise(self) -> bool:
        """Whether no difference was shown: the interval contains 1, or the ratio is within `LOADED_TWICE` of 1."""
        return self.low <= 1 <= self.high or max(self.ratio, 1 / self.ratio) < 1 + LOADED_TWICE

    @property
    def verdict(self) -> str:
        """Verdict in words, e.g. ``1.42× faster, CI 1.38–1.47`` or ``within noise, CI 0.99–1.02``."""
        apart = "" if self.interleaved else ", measured apart"
        if math.isinf(self.high):
            return f"{self.ratio:.2f}×, too few rounds for a verdict{apart}"
        if self.noise:
            return f"within noise, CI {self.low:.2f}–{self.high:.2f}{apart}"
        if self.ratio > 1:
            return f"{self.ratio:.2f}× faster, CI {self.low:.2f}–{self.high:.2f}{apart}"
        return f"{1 / self.ratio:.2f}× slower, CI {1 / self.high:.2f}–{1 / self.low:.2f}{apart}"

    def regression(self, percent: float) -> str:
        """Describe by how much the candidate is slower if that is shown and more than `percent`; empty otherwise."""
        slower = 100 * (1 / self.ratio - 1)
        if self.noise or slower <= percent:
            return ""
        return f"{slower:.1f} % slower than {self.baseline}, at most {percent:g} % asked for"


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """An engine that could not be run on this machine; it takes the place of a number.

    Attributes:
        artifact: sha256 of the engine.
        label: Label of the engine in tables.
        why: Reason why it could not be run.
    """

    artifact: str
    label: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Result of the stage `bench`.

    Attributes:
        measurements: Measurements of the engines, taken in turns in one run.
        not_run: Engines that this machine cannot run.
        failed: Engines that crashed or gave an error while they were measured; such a bench is not kept in the store.
    """

    measurements: tuple[Measurement, ...]
    not_run: tuple[NotRun, ...] = ()
    failed: tuple[NotRun, ...] = ()

    @property
    def stopped(self) -> str:
        """Why rounds are missing; empty where none is missing."""
        return next((m.stopped for m in self.measurements if m.stopped), "")

    @property
    def invalid(self) -> tuple[str, ...]:
        """Reasons why numbers must not be used, each with the engine's label."""
        return tuple(f"{m.label}: {why}" for m in self.measurements for why in m.invalid)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One engine in two runs.

    Attributes:
        label: Label of the candidate in tables.
        batch: Images per run.
        speed_up: Speed-up of the candidate over the baseline.
        allowed: Differences between the two runs that the user allowed, as sentences.
    """

    label: str
    batch: int
    speed_up: SpeedUp
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of two runs.

    Attributes:
        rows: Engines that both runs measured.
        baseline_when: Time of the baseline run, UTC in ISO 8601.
        candidate_when: Time of the candidate run, UTC in ISO 8601.
        alone: Labels of engines that only one of the two runs measured.
    """

    rows: tuple[Compared, ...]
    baseline_when: str
    candidate_when: str
    alone: tuple[str, ...] = ()

    @property
    def caveat(self) -> str:
        """Caveat that the ratios also hold what changed on the machine between the two runs."""
        return (
            f"measured apart ({self.baseline_when} and {self.candidate_when}), not in turns: what the machine did "
            "differently is in the ratio, and no interval covers that"
        )
