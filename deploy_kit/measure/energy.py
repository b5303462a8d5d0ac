"""Energy from readings: counters summed over their wrap-around, powers integrated, idle subtracted.

counter   E = Σ (cᵢ₊₁ - cᵢ), plus the range of the counter where it began anew
power     E = Σ (tᵢ₊₁ - tᵢ) (Pᵢ + Pᵢ₊₁) / 2
above idle    E - P_idle · T
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from deploy_kit.records.readings import Energy, Rail, Reading, Snapshot, Watched

MIN_S = 10.0  # INA3221 on Jetson averages over hundreds of ms, and a board's idle power wanders within seconds
GAUGES = ("rapl", "nvml", "ina")


@dataclass(frozen=True, kw_only=True)
class RailEnergy:
    """What one rail drew: joules in seconds, from so many readings."""

    joules: float
    seconds: float
    readings: int

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


def integrate_rails(snapshots: Sequence[Snapshot]) -> dict[tuple[str, str], RailEnergy]:
    """Give what each rail drew between the first and the last snapshot that hold it.

    Args:
        snapshots: In order of time.

    Returns:
        By (gauge, rail). A rail read only once, or a counter that was reset, is left out.
    """
    series: dict[tuple[str, str], list[tuple[float, Reading]]] = {}
    for snapshot in snapshots:
        for reading in snapshot.readings:
            if reading.kind in ("energy_uj", "power_mw"):
                series.setdefault((reading.gauge, reading.what), []).append((snapshot.at_s, reading))
    drawn = {}
    for rail, points in series.items():
        parts = [_between(first, second) for first, second in pairwise(points)]
        seconds = points[-1][0] - points[0][0]
        joules = [part for part in parts if part is not None]
        if len(joules) == len(parts) and seconds > 0:
            drawn[rail] = RailEnergy(joules=sum(joules), seconds=seconds, readings=len(points))
    return drawn


def _between(first: tuple[float, Reading], second: tuple[float, Reading]) -> float | None:
    """Give the joules between two readings; None where the counter was set back without a known range."""
    (begun_s, before), (ended_s, after) = first, second
    if after.kind == "power_mw":
        return (ended_s - begun_s) * (before.value + after.value) / 2000
    gone = after.value - before.value
    if gone < 0:
        if after.wraps_at <= 0:
            return None
        gone += after.wraps_at
    return gone / 1e6


def energy_of_engine(
    idle: Sequence[Snapshot], busy: Sequence[Snapshot], *, runs: int, batch: int, watched: Watched
) -> Energy:
    """Give what an engine cost, by rail.

    Args:
        idle: Before any engine was loaded.
        busy: From the first to the last of `runs` inferences, without a pause.
        runs: How many.
        batch: Images of one.
        watched: What the gauges can read there.

    Returns:
        Rails, or why there are none.
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


def why_no_energy(watched: Watched) -> str:
    """Say why no energy can be read there; empty if it can."""
    known = dict(watched.unreadable)
    if any(name not in known for name in GAUGES):
        return ""
    return "not measured: " + "; ".join(known[name] for name in GAUGES)
