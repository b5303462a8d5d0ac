"""MLPerf Server: single images that arrive at random (Poisson) times; judged by p99 latency against the budget."""

from collections.abc import Sequence
from typing import Any

from deploy_kit.measure.scenarios import Scenario, TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


def run(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, LoadGenResult]:
    """Run one test."""
    return _loadgen.run_loadgen("Server", streams, load, _configure)


def _configure(settings: Any, load: TurnLoad) -> None:
    settings.server_target_qps = load.target_qps
    settings.server_target_latency_ns = round(load.latency_budget_ms * 1e6)


def batches(batch: int) -> str:
    """Say that a query is one image: nothing here gathers queries into batches."""
    return "" if batch == 1 else f"a query of 'server' is one image, and the engine takes {batch}"


SCENARIO = Scenario(
    run=run,
    why_unavailable=_loadgen.why_unavailable,
    batches=batches,
    needs=("target_qps", "latency_budget_ms"),
)
