"""MLPerf Offline: all images are available from the start; judged by images per second."""

from collections.abc import Sequence
from typing import Any

from deploy_kit.measure.scenarios import Scenario, TurnLoad, _loadgen
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult


def run_offline(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, LoadGenResult]:
    """Run one test of LoadGen, which issues as many images as fill the time at the pace of the warm-up."""
    expected = 1e3 * load.batch * len(streams) / load.pace_ms

    def configure(settings: Any, _: TurnLoad) -> None:
        settings.offline_expected_qps = expected

    return _loadgen.run_loadgen("Offline", streams, load, configure)


SCENARIO = Scenario(run=run_offline, why_unavailable=_loadgen.why_no_loadgen)
