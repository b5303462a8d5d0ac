"""What known devices can do at best (`profiles.yaml`), and what an unknown processor did when it was measured."""

from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

import yaml

from deploy_kit import codec
from deploy_kit.measurements import Environment
from deploy_kit.readings import Board
from deploy_kit.records import Precision


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A power mode: the clock that it allows the GPU, and the memory bandwidth that comes with it."""

    name: str
    gpu_mhz: float
    bandwidth_gb_s: float


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device with a GPU of its own kind; the fields are those of `profiles.yaml`."""

    name: str
    match: tuple[str, ...]
    gpu: str
    sm: int
    modes: tuple[Mode, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Cores of one kind: operations a clock by precision, and their highest clock."""

    cores: int
    mhz: float
    fp32: float
    fp16: float
    int8: float


@dataclass(frozen=True, kw_only=True)
class ProcessorRow:
    """A known processor."""

    name: str
    match: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    bandwidth_gb_s: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """All of `profiles.yaml`; rates by name and precision."""

    gpus: dict[str, dict[str, float]] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    processors: tuple[ProcessorRow, ...] = ()
    isa: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measured:
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


def table() -> Table:
    """Read the data.

    Raises:
        RecipeError: A row does not fit; the message names it.
    """
    text = resources.files("deploy_kit.measure").joinpath("profiles.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    return Table(
        gpus=data["gpus"],
        devices=tuple(codec.from_json(Device, row, f"profiles.yaml: {row['name']}") for row in data["devices"]),
        processors=tuple(
            codec.from_json(ProcessorRow, row, f"profiles.yaml: {row['name']}") for row in data["processors"]
        ),
        isa=data["isa"],
    )


def device_of(board: Board) -> Device | None:
    """Give the row of a device, by the board's names in its device tree; None where there is none."""
    said = " ".join((*board.compatible, board.model))
    return next((row for row in table().devices if any(name in said for name in row.match)), None)


def gpu_peak(board: Board, precision: Precision) -> Peak | None:
    """Compute the dense rate of the GPU of a known device at the clock limit in force.

        operations a second = SM · operations a clock and SM · clock

    Returns:
        None where the device has no row, or its maker states no rate for the precision.
    """
    row = device_of(board)
    per_clock = table().gpus[row.gpu].get(precision) if row else None
    if row is None or per_clock is None:
        return None
    clock_mhz = board.gpu_max_mhz or row.modes[-1].gpu_mhz
    mode = next((mode for mode in row.modes if mode.gpu_mhz >= clock_mhz), row.modes[-1])
    clock = "clock limit in force" if board.gpu_max_mhz else f"highest clock ({mode.name}), for the device states none"
    return Peak(
        device=row.name,
        basis="computed" if board.gpu_max_mhz else "datasheet",
        source=f"{row.sm} SM · {per_clock:g} dense operations · {clock_mhz:.0f} MHz ({clock}); {row.source}",
        ops_s=row.sm * per_clock * clock_mhz * 1e6,
        bandwidth_b_s=mode.bandwidth_gb_s * 1e9,
    )


def cpu_peak(board: Board, here: Environment, precision: Precision, measured: Measured) -> Peak:
    """Give the rate of a processor: of its row where it is known and not virtual, else from what was measured."""
    said = f"{board.model} {here.cpu}"
    rows = (row for row in table().processors if any(name in said for name in row.match))
    row = None if here.virtual else next(rows, None)
    if row is None:
        return _of_measured(here, precision, measured)
    clusters = row.clusters
    return Peak(
        device=row.name,
        basis="datasheet",
        source=row.source,
        ops_s=sum(c.cores * c.mhz * 1e6 * _per_clock(c, precision) for c in clusters),
        bandwidth_b_s=row.bandwidth_gb_s * 1e9,
    )


def _per_clock(cluster: Cluster, precision: Precision) -> float:
    return {"fp32": cluster.fp32, "fp16": cluster.fp16, "bf16": cluster.fp32, "int8": cluster.int8}[precision]


def _of_measured(here: Environment, precision: Precision, measured: Measured) -> Peak:
    known = table().isa.get(precision, {})
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
