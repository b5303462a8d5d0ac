"""MLPerf Server: single images that arrive at random (Poisson) times; judged by p99 latency within a budget."""

from collections.abc import Sequence
from typing import Any

from deploy_kit.measure.scenarios import Scenario, TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


def run_server(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, LoadGenResult]:
    """Run one test of LoadGen."""
    return _loadgen.run_loadgen("Server", streams, load, _configure)


def _configure(settings: Any, load: TurnLoad) -> None:
    settings.server_target_qps = load.target_qps
    settings.server_target_latency_ns = round(load.latency_budget_ms * 1e6)


def why_batch_refused(batch: int) -> str:
    """Return why an engine of this batch size cannot be fed: a query is one image, and queries are not batched."""
    return "" if batch == 1 else f"a query of 'server' is one image, and the engine takes {batch}"


SCENARIO = Scenario(
    run=run_server,
    why_unavailable=_loadgen.why_no_loadgen,
    why_batch_refused=why_batch_refused,
    needs=("target_qps", "latency_budget_ms"),
)
