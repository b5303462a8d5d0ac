"""Peak rates for the roofline: of known GPUs from `hardware_peaks.yaml`, of processors as measured."""

from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

import yaml

from deploy_kit.records import codec
from deploy_kit.records.artifacts import Precision
from deploy_kit.records.measurements import Environment
from deploy_kit.records.readings import Board


@dataclass(frozen=True, kw_only=True)
class PowerMode:
    """A power mode of a Jetson.

    Attributes:
        name: Name of the mode, e.g. ``MAXN``.
        gpu_mhz: Highest GPU clock that it allows in MHz.
        memory_mhz: Memory clock in MHz.
    """

    name: str
    gpu_mhz: float
    memory_mhz: float


@dataclass(frozen=True, kw_only=True)
class KnownGpu:
    """A device with a known GPU; one row of `hardware_peaks.yaml`.

    Attributes:
        name: Name of the device.
        match: Texts of which one is in the device tree's model or compatible strings.
        gpu: Name of the GPU's architecture in the table of rates.
        sm: Number of streaming multiprocessors.
        bus_bits: Width of the memory bus in bits.
        modes: Power modes in ascending order of their clocks.
        source: Document that the numbers come from.
    """

    name: str
    match: tuple[str, ...]
    gpu: str
    sm: int
    bus_bits: int
    modes: tuple[PowerMode, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class PeakTable:
    """Content of `hardware_peaks.yaml`.

    Attributes:
        gpus: Dense operations per clock and streaming multiprocessor, by GPU architecture and precision.
        tpcs: Number of texture processing clusters, by GPU architecture.
        devices: Known devices.
        isa: Factor over the measured float32 rate, by precision and instruction set, the fastest set first.
    """

    gpus: dict[str, dict[str, float]] = field(default_factory=dict)
    tpcs: dict[str, int] = field(default_factory=dict)
    devices: tuple[KnownGpu, ...] = ()
    isa: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasuredPeak:
    """Measured rates of a processor's cores, the best of all attempts.

    Attributes:
        flop_s: Float32 operations per second; a multiply-accumulate counts as two.
        bandwidth_b_s: Bytes per second that are read and written while copying memory.
    """

    flop_s: float
    bandwidth_b_s: float


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Peak rates of a device at one precision.

    Attributes:
        device: Name of the device or processor.
        basis: Whether the rate was measured, computed from the clock in force, or taken from a datasheet.
        source: The numbers that the rate is made from, and their source.
        ops_s: Dense operations per second; a multiply-accumulate counts as two.
        bandwidth_b_s: Memory bandwidth in bytes per second.
    """

    device: str
    basis: Literal["measured", "computed", "datasheet"]
    source: str
    ops_s: float
    bandwidth_b_s: float


def peak_table() -> PeakTable:
    """Read `hardware_peaks.yaml`.

    Raises:
        RecipeError: A row has an unknown or missing key; the message names it.
    """
    text = resources.files("deploy_kit.measure").joinpath("hardware_peaks.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    return PeakTable(
        gpus=data["gpus"],
        tpcs=data["tpcs"],
        devices=tuple(codec.from_json(KnownGpu, row, f"hardware_peaks.yaml: {row['name']}") for row in data["devices"]),
        isa=data["isa"],
    )


def find_known_gpu(board: Board) -> KnownGpu | None:
    """Find the row of a device by the names in its device tree; None where there is none."""
    names = " ".join((*board.compatible, board.model))
    return next((row for row in peak_table().devices if any(name in names for name in row.match)), None)


def gpu_peak(board: Board, precision: Precision) -> Peak | None:
    """Compute the dense rate of a known device's GPU as its power mode has set it.

        operations per second = SM · operations per clock and SM · clock

    Args:
        board: Identity of the board, and the clocks in force.
        precision: Precision of the products.

    Returns:
        The rates; None where the device has no row, or no source gives a rate for the precision.
    """
    row = find_known_gpu(board)
    per_clock = peak_table().gpus[row.gpu].get(precision) if row else None
    if row is None or per_clock is None:
        return None
    sm, highest = _multiprocessors(row, board), row.modes[-1]
    clock_mhz = board.gpu_max_mhz or highest.gpu_mhz
    clock = (
        "clock limit in force" if board.gpu_max_mhz else f"highest clock ({highest.name}), for the device states none"
    )
    return Peak(
        device=row.name,
        basis="computed" if board.gpu_max_mhz else "datasheet",
        source=f"{sm} SM · {per_clock:g} dense operations · {clock_mhz:.0f} MHz ({clock}); {row.source}",
        ops_s=sm * per_clock * clock_mhz * 1e6,
        bandwidth_b_s=2 * _memory_mhz(row, board, clock_mhz) * 1e6 * row.bus_bits / 8,
    )


def _multiprocessors(row: KnownGpu, board: Board) -> int:
    """Return the number of SM that the power mode leaves on; all where no source explains its mask."""
    clusters = peak_table().tpcs.get(row.gpu, 0) - board.gpu_tpc_mask.bit_count()
    return min(row.sm, 2 * clusters) if clusters > 0 else row.sm


def _memory_mhz(row: KnownGpu, board: Board, gpu_mhz: float) -> float:
    """Return the memory clock: as the device reports it, else that of the first mode that allows this GPU clock."""
    mode = next((mode for mode in row.modes if mode.gpu_mhz >= gpu_mhz), row.modes[-1])
    return min(board.memory_max_mhz or mode.memory_mhz, row.modes[-1].memory_mhz)


def cpu_peak(here: Environment, precision: Precision, measured: MeasuredPeak) -> Peak:
    """Compute the rate of a processor: the measured float32 rate, times the factor of its instruction set.

    Args:
        here: Machine that the processor belongs to.
        precision: Precision of the products.
        measured: Measured rates of its cores.
    """
    known = peak_table().isa.get(precision, {})
    isa = next((name for name in known if name in here.isa), "")
    factor = known.get(isa, 1.0)
    rate = f"{measured.flop_s / 1e9:.0f} GFLOP/s float32 by numpy on {here.cores} cores"
    bandwidth = f"copying at {measured.bandwidth_b_s / 1e9:.1f} GB/s"
    return Peak(
        device=here.cpu,
        basis="measured" if factor == 1.0 else "computed",
        source=rate + (f" as measured, times {factor:g} for {isa}" if isa else "") + f"; {bandwidth}",
        ops_s=measured.flop_s * factor,
        bandwidth_b_s=measured.bandwidth_b_s,
    )
