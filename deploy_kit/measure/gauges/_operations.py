"""Operations of a worker that reads the gauges of its machine while engines are timed in others."""

import os
from collections.abc import Callable
from typing import Any

from deploy_kit.base.errors import StageError
from deploy_kit.measure.gauges import _peak
from deploy_kit.measure.gauges._recorder import Recorder, scope_of_process, survey_gauges
from deploy_kit.records import codec

Arguments = dict[str, Any]


class GaugeOperations:
    """Operations on the gauges of a machine, with at most one recorder."""

    def __init__(self) -> None:
        """Create the operations; nothing is read yet."""
        self._recorder: Recorder | None = None

    def table(self) -> dict[str, Callable[[Arguments], Arguments]]:
        """Return the operations by name."""
        return {
            "process": self.process,
            "watch_gauges": self.watch_gauges,
            "read_gauges": self.read_gauges,
            "measure_roof": self.measure_roof,
        }

    def process(self, arguments: Arguments) -> Arguments:
        """Return the id of this process, whose load is deploykit's own."""
        return {"pid": os.getpid()}

    def watch_gauges(self, arguments: Arguments) -> Arguments:
        """Read all gauges below ``root`` every ``period_s`` seconds from now on, and describe them."""
        scope = scope_of_process(arguments["root"])
        self._recorder = Recorder(scope, arguments["period_s"])
        return {"watched": codec.to_json(survey_gauges(scope))}

    def read_gauges(self, arguments: Arguments) -> Arguments:
        """Return the snapshots since the last call, the last taken now; processes ``own`` are own load from now on."""
        if self._recorder is None:
            raise StageError("worker: read_gauges was asked for before watch_gauges")
        snapshots = self._recorder.take()
        self._recorder.set_own(tuple(arguments["own"]))
        return {"snapshots": codec.to_json(snapshots), "cost": self._recorder.cost}

    def measure_roof(self, arguments: Arguments) -> Arguments:
        """Measure the float32 rate and the memory bandwidth of this machine's cores."""
        return {"flop_s": _peak.flop_s(), "bandwidth_b_s": _peak.bandwidth_b_s()}
