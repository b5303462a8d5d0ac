"""MLPerf SingleStream: one image at a time, each after the last was answered; judged by p90 latency."""

from collections.abc import Sequence
from typing import Any

from deploy_kit.measure.scenarios import Scenario, TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


def run_single_stream(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, LoadGenResult]:
    """Run one test of LoadGen."""
    return _loadgen.run_loadgen("SingleStream", streams, load, _configure)


def _configure(settings: Any, load: TurnLoad) -> None:
    settings.single_stream_expected_latency_ns = max(1, round(load.pace_ms * 1e6))


def why_batch_refused(batch: int) -> str:
    """Return why an engine of this batch size cannot be fed: a query is one image."""
    return "" if batch == 1 else f"a query of 'single-stream' is one image, and the engine takes {batch}"


SCENARIO = Scenario(run=run_single_stream, why_unavailable=_loadgen.why_no_loadgen, why_batch_refused=why_batch_refused)
