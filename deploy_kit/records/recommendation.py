"""Records of a recommendation: the engine to deploy, and why not another one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What an engine may cost; None sets no budget.

    Attributes:
        latency_ms: Largest latency in ms, at the largest percentile that a report judges.
        max_drop: Largest drop of accuracy in percentage points, by the upper end of its 95 % confidence interval.
        max_size_mb: Largest size of the files that a target needs, in MB (10⁶ bytes).
        max_energy_mj: Largest energy above idle per image in mJ, of every power rail that was read.
        max_power_w: Largest mean power in W while it runs without a pause, idle power included, of every such rail.
    """

    latency_ms: float | None = None
    max_drop: float | None = None
    max_size_mb: float | None = None
    max_energy_mj: float | None = None
    max_power_w: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Each budget that is set, e.g. ``latency ≤ 8 ms``."""
        rows = (
            ("latency", self.latency_ms, "ms"),
            ("drop", self.max_drop, "points"),
            ("size", self.max_size_mb, "MB"),
            ("energy an image", self.max_energy_mj, "mJ"),
            ("power", self.max_power_w, "W"),
        )
        return tuple(f"{name} ≤ {value:g} {unit}" for name, value, unit in rows if value is not None)


@dataclass(frozen=True, kw_only=True)
class Loser:
    """An engine that is not recommended.

    Attributes:
        label: Label of the engine, e.g. ``fp32 · openvino``.
        why: Why not, as a sentence.
        tied: Whether no measurement tells it from the winner.
    """

    label: str
    why: str
    tied: bool = False


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The fastest engine of those that were accepted and keep the budgets; of equally fast ones the smallest.

    Attributes:
        winner: Label of the engine; empty where none qualifies.
        why: What speaks for it, or why there is none, as a sentence.
        losers: Every other engine.
        budgets: The budgets in force.
    """

    winner: str
    why: str
    losers: tuple[Loser, ...]
    budgets: Budgets
