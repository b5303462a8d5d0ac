"""What known GPUs can do at best (`profiles.yaml`), and what a processor did when it was measured."""

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
    """A power mode: the clocks that it allows the GPU and the memory."""

    name: str
    gpu_mhz: float
    memory_mhz: float


@dataclass(frozen=True, kw_only=True)
class KnownGpu:
    """A device with a GPU of its own kind; the fields are those of `profiles.yaml`."""

    name: str
    match: tuple[str, ...]
    gpu: str
    sm: int
    bus_bits: int
    modes: tuple[PowerMode, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class PeakTable:
    """All of `profiles.yaml`; rates by name and precision, clusters by name."""

    gpus: dict[str, dict[str, float]] = field(default_factory=dict)
    tpcs: dict[str, int] = field(default_factory=dict)
    devices: tuple[KnownGpu, ...] = ()
    isa: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasuredPeak:
    """What the cores did: float32 operations and bytes a second, the most of all attempts."""

    flop_s: float
    bandwidth_b_s: float


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A device's rate at one precision, and where it comes from."""

    device: str
    basis: Literal["measured", "computed", "datasheet"]
    source: str
    ops_s: float
    bandwidth_b_s: float


def peak_table() -> PeakTable:
    """Read the data.

    Raises:
        RecipeError: A row does not fit; the message names it.
    """
    text = resources.files("deploy_kit.measure").joinpath("hardware_peaks.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    return PeakTable(
        gpus=data["gpus"],
        tpcs=data["tpcs"],
        devices=tuple(codec.from_json(KnownGpu, row, f"profiles.yaml: {row['name']}") for row in data["devices"]),
        isa=data["isa"],
    )


def find_known_gpu(board: Board) -> KnownGpu | None:
    """Give the row of a device, by the board's names in its device tree; None where there is none."""
    said = " ".join((*board.compatible, board.model))
    return next((row for row in peak_table().devices if any(name in said for name in row.match)), None)


def gpu_peak(board: Board, precision: Precision) -> Peak | None:
    """Compute the dense rate of the GPU of a known device as its power mode has set it.

        operations a second = SM · operations a clock and SM · clock

    Returns:
        None where the device has no row, or no source gives a rate for the precision.
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
    """Count the SM that the power mode leaves on; all, where no source says what its mask means."""
    clusters = peak_table().tpcs.get(row.gpu, 0) - board.gpu_tpc_mask.bit_count()
    return min(row.sm, 2 * clusters) if clusters > 0 else row.sm


def _memory_mhz(row: KnownGpu, board: Board, gpu_mhz: float) -> float:
    """Give the memory's clock: as the device states it, else that of the first mode that allows the GPU this clock."""
    mode = next((mode for mode in row.modes if mode.gpu_mhz >= gpu_mhz), row.modes[-1])
    return min(board.memory_max_mhz or mode.memory_mhz, row.modes[-1].memory_mhz)


def cpu_peak(here: Environment, precision: Precision, measured: MeasuredPeak) -> Peak:
    """Give the rate of a processor: float32 as measured, times what its instruction set gives at this precision."""
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
