"""What a worker answers about the machine it is on, while others are timed."""

import os
from collections.abc import Callable
from typing import Any

from deploy_kit.base.errors import StageError
from deploy_kit.measure.gauges import _peak
from deploy_kit.measure.gauges._recorder import Recorder, scope_of_process, survey_gauges
from deploy_kit.records import codec

Arguments = dict[str, Any]


class GaugeOperations:
    """One recorder at most, and the operations on it."""

    def __init__(self) -> None:
        """Start with nothing watched."""
        self._recorder: Recorder | None = None

    def table(self) -> dict[str, Callable[[Arguments], Arguments]]:
        """Give the operations by name."""
        return {
            "process": self.process,
            "watch_gauges": self.watch_gauges,
            "read_gauges": self.read_gauges,
            "measure_roof": self.measure_roof,
        }

    def process(self, arguments: Arguments) -> Arguments:
        """Say which process this is: its load is no foreign load."""
        return {"pid": os.getpid()}

    def watch_gauges(self, arguments: Arguments) -> Arguments:
        """Read all gauges below ``root`` every ``period_s`` from now on."""
        place = scope_of_process(arguments["root"])
        self._recorder = Recorder(place, arguments["period_s"])
        return {"watched": codec.to_json(survey_gauges(place))}

    def read_gauges(self, arguments: Arguments) -> Arguments:
        """Give the snapshots since the last call and one of now; the load of processes ``own`` is ours from now on."""
        if self._recorder is None:
            raise StageError("worker: read_gauges was asked for before watch_gauges")
        snapshots = self._recorder.take()
        self._recorder.own(tuple(arguments["own"]))
        return {"snapshots": codec.to_json(snapshots), "cost": self._recorder.cost}

    def measure_roof(self, arguments: Arguments) -> Arguments:
        """Measure the float32 rate and the memory bandwidth of the cores."""
        return {"flop_s": _peak.flop_s(), "bandwidth_b_s": _peak.bandwidth_b_s()}
