"""The plain closed loop: each stream issues its next run when the last one has ended. The default."""

from collections.abc import Sequence

from deploy_kit.measure import stopwatch
from deploy_kit.measure.scenarios import Scenario, TurnLoad
from deploy_kit.measure.stopwatch import Steps, Turn


def run(streams: Sequence[Steps], load: TurnLoad) -> tuple[Turn, None]:
    """Take one turn; LoadGen has no say in it."""
    return stopwatch.take_turn(streams, load.n, load.seconds, devices=load.devices), None


SCENARIO = Scenario(run=run, why_unavailable=lambda: "", batches=lambda _: "", rounds=12, seconds=0.0)
