"""Scenarios: how runs are issued to an engine. One file each, named with underscores for the dashes.

A scenario runs where the engine runs, inside its worker: no network and no other process is in the latency. It needs
the standard library, and those of MLPerf the package ``mlcommons-loadgen`` on that machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import UnknownNameError, nearest
from deploy_kit.measure.stopwatch import DeviceClock, Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


@dataclass(frozen=True, kw_only=True)
class TurnLoad:
    """What is asked of one turn.

    Attributes:
        n: Runs (of a LoadGen scenario: queries) at least.
        seconds: Of the turn, at least.
        batch: Images per run.
        pace_ms: What one run took in the warm-up.
        target_qps: Queries a second that arrive; ``server`` alone.
        latency_budget_ms: What LoadGen judges ``server`` by.
        devices: The device's own clock of each stream, for ``closed-loop`` alone; empty where there is none.
    """

    n: int
    seconds: float
    batch: int
    pace_ms: float
    target_qps: float = 0.0
    latency_budget_ms: float = 0.0
    devices: tuple[DeviceClock, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario of the catalogue.

    Attributes:
        run: (one run of each stream, what is asked) → the samples, and what LoadGen says.
        why_unavailable: Why it cannot run on this machine; empty if it can.
        batches: Why it cannot feed an engine of this batch; empty if it can.
        rounds: Turns of every engine, unless something else is asked for.
        runs: Runs (of a LoadGen scenario: queries) of one turn at least, likewise.
        seconds: Of one turn, unless something else is asked for.
        needs: Keys of a recipe's bench table that it cannot do without.
    """

    run: Callable[[Sequence[Steps], TurnLoad], tuple[Turn, LoadGenResult | None]]
    why_unavailable: Callable[[], str]
    batches: Callable[[int], str]
    rounds: int = 1
    runs: int = 100
    seconds: float = 10.0
    needs: tuple[str, ...] = ()


CATALOGUE: Catalogue[Scenario] = Catalogue(__name__, "SCENARIO", "scenario")


def scenario_names() -> tuple[str, ...]:
    """List all scenarios as users write them, e.g. ``single-stream``."""
    return tuple(name.replace("_", "-") for name in CATALOGUE.names())


def get_scenario(name: str) -> Scenario:
    """Give the scenario of this name.

    Raises:
        UnknownNameError: There is none; the hint names the nearest.
    """
    if name not in scenario_names():
        raise UnknownNameError(f"no scenario is called '{name}'", hint=nearest(name, scenario_names()))
    return CATALOGUE.get(name.replace("-", "_"))
