"""Energy from readings: counters summed over their wrap-around, powers integrated, idle power subtracted.

counter      E = Σ (cᵢ₊₁ - cᵢ), plus the range of the counter where it wrapped around
power        E = Σ (tᵢ₊₁ - tᵢ) (Pᵢ + Pᵢ₊₁) / 2
above idle   E - P_idle · T
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from deploy_kit.records.readings import Energy, MonitorSettings, Rail, Reading, Snapshot

MIN_S = 10.0  # INA3221 on Jetson averages over hundreds of ms, and a board's idle power wanders within seconds
_FIRST = ("rapl", "nvml", "ina")  # order in a message: processor, GPU, board; then all others


@dataclass(frozen=True, kw_only=True)
class RailEnergy:
    """Energy of one rail.

    Attributes:
        joules: Energy in J.
        seconds: Time between the first and the last reading in seconds.
        readings: Number of readings.
    """

    joules: float
    seconds: float
    readings: int

    @property
    def watts(self) -> float:
        """Mean power in W."""
        return self.joules / self.seconds


def integrate_rails(snapshots: Sequence[Snapshot]) -> dict[tuple[str, str], RailEnergy]:
    """Compute the energy of each rail between the first and the last snapshot that contain it.

    Args:
        snapshots: Snapshots in order of time.

    Returns:
        Energy by (gauge, rail). A rail that was read only once, or whose counter was reset, is left out.
    """
    series: dict[tuple[str, str], list[tuple[float, Reading]]] = {}
    for snapshot in snapshots:
        for reading in snapshot.readings:
            if reading.kind in ("energy_uj", "power_mw"):
                series.setdefault((reading.gauge, reading.what), []).append((snapshot.at_s, reading))
    energies = {}
    for rail, points in series.items():
        parts = [_joules_between(first, second) for first, second in pairwise(points)]
        seconds = points[-1][0] - points[0][0]
        joules = [part for part in parts if part is not None]
        # One unknown part makes the sum unknown: a rail without a number is better than one that is too low.
        if len(joules) == len(parts) and seconds > 0:
            energies[rail] = RailEnergy(joules=sum(joules), seconds=seconds, readings=len(points))
    return energies


def _joules_between(first: tuple[float, Reading], second: tuple[float, Reading]) -> float | None:
    """Return the energy in J between two readings; None where the counter fell and its range is not known."""
    (begun_s, before), (ended_s, after) = first, second
    if after.kind == "power_mw":
        return (ended_s - begun_s) * (before.value + after.value) / 2000
    microjoules = after.value - before.value
    if microjoules < 0:  # readings come several times a second, so a counter wraps around once between two at most
        if after.wraps_at <= 0:
            return None
        microjoules += after.wraps_at
    return microjoules / 1e6


def energy_of_engine(
    idle: Sequence[Snapshot], busy: Sequence[Snapshot], *, runs: int, batch: int, watched: MonitorSettings
) -> Energy:
    """Compute the energy of an engine by rail.

    Args:
        idle: Snapshots from before any engine was loaded.
        busy: Snapshots from the first to the last of `runs` inferences without a pause.
        runs: Number of inferences.
        batch: Images per inference.
        watched: What the gauges of the machine can and cannot read.

    Returns:
        Energy of each rail, or the reason why nothing was measured.
    """
    resting, working = integrate_rails(idle), integrate_rails(busy)
    if not working.keys() & resting.keys():
        return Energy(why=why_no_energy(watched) or "not measured: no gauge gave an energy or a power while it ran")
    short = min(min(resting[rail].seconds, working[rail].seconds) for rail in working.keys() & resting.keys())
    if short < MIN_S:
        return Energy(why=f"not measured: {short:.1f} s were read, energy takes {MIN_S:g} s idle and as many at work")
    rails = tuple(
        Rail(
            name=name,
            gauge=gauge,
            joules=work.joules,
            seconds=work.seconds,
            idle_w=resting[gauge, name].watts,
            rate_hz=(work.readings - 1) / work.seconds,
            runs=runs,
            batch=batch,
        )
        for (gauge, name), work in working.items()
        if (gauge, name) in resting
    )
    return Energy(rails=rails)


def why_no_energy(watched: MonitorSettings) -> str:
    """Return why no energy can be read on a machine; empty if a gauge can read it."""
    known = dict(watched.unreadable)
    if any(name not in known for name in watched.energy_gauges):
        return ""
    ordered = sorted(watched.energy_gauges, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return "not measured: " + "; ".join(known[name] for name in ordered)
