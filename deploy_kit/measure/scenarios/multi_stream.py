"""MLPerf MultiStream: queries of eight images, each after the last was answered; judged by p99 query latency."""

from collections.abc import Sequence
from typing import Any

from deploy_kit.measure.scenarios import Scenario, TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult

IMAGES = 8
"""Images of one query, by MLPerf's rules and LoadGen's default."""


def run_multi_stream(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, LoadGenResult]:
    """Run one test of LoadGen."""
    return _loadgen.run_loadgen("MultiStream", streams, load, _configure)


def _configure(settings: Any, load: TurnLoad) -> None:
    settings.multi_stream_samples_per_query = IMAGES
    settings.multi_stream_expected_latency_ns = max(1, round(load.pace_ms * 1e6 * IMAGES / load.batch))


def why_batch_refused(batch: int) -> str:
    """Return why an engine of this batch size cannot be fed: the batch must divide a query."""
    fits = batch <= IMAGES and IMAGES % batch == 0
    return "" if fits else f"a query of 'multi-stream' is {IMAGES} images, and the engine takes {batch}"


# LoadGen needs 662 queries to state p99 with 99 % confidence.
SCENARIO = Scenario(
    runs=662, run=run_multi_stream, why_unavailable=_loadgen.why_no_loadgen, why_batch_refused=why_batch_refused
)
