"""Scenarios: how runs are issued to an engine. One file each, named with underscores for the dashes.

A scenario runs inside the worker of the engine, so that neither a network nor another process is part of the latency.
It needs the standard library; those of MLPerf need the package ``mlcommons-loadgen`` on the same machine.

A third party registers a scenario under the entry points ``deploy_kit.scenarios``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import UnknownNameError, nearest
from deploy_kit.measure.stopwatch import DeviceClock, Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


@dataclass(frozen=True, kw_only=True)
class TurnLoad:
    """Load that a scenario puts on an engine in one turn.

    Attributes:
        n: Least number of runs, or of queries in a LoadGen scenario.
        seconds: Least duration of the turn in seconds.
        batch: Images per run.
        pace_ms: Median time of a run in the warm-up, in ms.
        target_qps: Queries per second that arrive; only for ``server``.
        latency_budget_ms: Latency budget in ms by which LoadGen judges ``server``.
        devices: The device's own clock for each stream, used by ``closed-loop``; empty where there is none.
    """

    n: int
    seconds: float
    batch: int
    pace_ms: float
    target_qps: float = 0.0
    latency_budget_ms: float = 0.0
    devices: tuple[DeviceClock, ...] = ()


def _always_available() -> str:
    return ""


def _takes_any_batch(batch: int) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario of the catalogue.

    Attributes:
        run: (steps of one run for each stream, load) → the samples of a turn, and LoadGen's result; None without
            LoadGen.
        why_unavailable: () → why it cannot run on this machine; empty if it can.
        why_batch_refused: (batch size of an engine) → why it cannot feed the engine; empty if it can.
        rounds: Number of rounds, unless the recipe sets another.
        runs: Least number of runs in a turn, or of queries in a LoadGen scenario, unless the recipe sets another.
        seconds: Least duration of a turn in seconds, unless the recipe sets another.
        needs: Keys of a recipe's bench table that it requires.
    """

    run: Callable[[Sequence[Steps], TurnLoad], tuple[Turn, LoadGenResult | None]]
    why_unavailable: Callable[[], str] = _always_available
    why_batch_refused: Callable[[int], str] = _takes_any_batch
    rounds: int = 1
    runs: int = 100
    seconds: float = 10.0
    needs: tuple[str, ...] = ()


CATALOGUE: Catalogue[Scenario] = Catalogue(__name__, "SCENARIO", "scenario")


def scenario_names() -> tuple[str, ...]:
    """List all scenarios as users write their names, e.g. ``single-stream``."""
    return tuple(name.replace("_", "-") for name in CATALOGUE.names())


def get_scenario(name: str) -> Scenario:
    """Return the scenario of this name, e.g. ``single-stream``.

    Raises:
        UnknownNameError: No scenario has this name; the hint gives the nearest one.
    """
    if name not in scenario_names():
        raise UnknownNameError(f"no scenario is called '{name}'", hint=nearest(name, scenario_names()))
    return CATALOGUE.get(name.replace("-", "_"))
