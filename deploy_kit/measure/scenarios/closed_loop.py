"""The closed loop, which is the default: each stream issues its next run when its last one has ended."""

from collections.abc import Sequence

from deploy_kit.measure import stopwatch
from deploy_kit.measure.scenarios import Scenario, TurnLoad
from deploy_kit.measure.stopwatch import Steps, Turn


def run_closed_loop(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, None]:
    """Take one turn, without LoadGen."""
    return stopwatch.take_turn(streams, load.n, load.seconds, devices=load.devices), None


SCENARIO = Scenario(run=run_closed_loop, rounds=12, seconds=0.0)
