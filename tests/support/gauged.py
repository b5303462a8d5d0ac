"""A worker that pretends gauges: each time it is asked, 11 s have passed, and a rail and a load have been drawn."""

from typing import Any

from deploy_kit.records import codec
from deploy_kit.records.readings import Board, MonitorSettings, Reading, Snapshot

WATCHED = MonitorSettings(
    settings=(("power mode", "25W (1)"),),
    unreadable=(("cpu_clocks", "no cpufreq here"), ("throttle", "no throttle counter here")),
    advice=("sudo nvpmodel -m 2",),
    board=Board(model="a board", compatible=(), memory_gib=8.0, cores=2, gpu_max_mhz=0.0),
    energy_gauges=("ina", "nvml", "rapl"),
)
NO_ENERGY = (("rapl", "no RAPL"), ("nvml", "no driver"), ("ina", "no INA"))


class Gauges:
    """Answers of a gauge worker: `watts` by the number of the reading; `foreign` seconds are taken between two."""

    def __init__(
        self, *, watched: MonitorSettings = WATCHED, watts: tuple[float, ...] = (5.0,), foreign: float = 0.0
    ) -> None:
        self.watched, self.watts, self.foreign = watched, watts, foreign
        self.readings = 0

    def answers(self) -> dict[str, Any]:
        return {
            "watch_gauges": lambda _: {"watched": codec.to_json(self.watched)},
            "read_gauges": lambda _: {"snapshots": codec.to_json([self._snapshot()]), "cost": 0.004},
            "measure_roof": {"flop_s": 100e9, "bandwidth_b_s": 10e9},
            "process": {"pid": 4711},
        }

    def _snapshot(self) -> Snapshot:
        number, self.readings = self.readings, self.readings + 1
        watts = self.watts[min(number, len(self.watts) - 1)]
        return Snapshot(
            at_s=11.0 * number,
            readings=(
                Reading(gauge="ina", what="VDD_IN", kind="power_mw", value=1000 * watts),
                Reading(gauge="load", what="all processes", kind="busy_s", value=number * (20 + self.foreign)),
                Reading(gauge="load", what="own processes", kind="own_s", value=number * 20),
                Reading(gauge="load", what="hypervisor", kind="steal_s", value=0),
            ),
        )
