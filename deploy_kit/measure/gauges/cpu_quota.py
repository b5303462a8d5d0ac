"""Time for which a container's CPU quota held its processes back, from its control groups' ``cpu.stat``.

A group that has used up its quota waits for the rest of the period (0.1 s by default), on each core apart; the kernel
adds these waits up over the cores (scheduler/sched-bwc of its documentation).
"""

from deploy_kit.machine import cgroup
from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.records.readings import Reading


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read the counter of waits in seconds, summed over the cores and the groups that lie in each other."""
    held_s = cgroup.held_back_s(scope.root / "sys/fs/cgroup", scope.root / "proc/self/cgroup")
    if held_s is None:
        return ()
    return (Reading(gauge="cpu_quota", what="control group", kind="quota_s", value=held_s),)


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there is nothing to read."""
    return "" if read(scope) else "no control group with a count of CPU quota here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
