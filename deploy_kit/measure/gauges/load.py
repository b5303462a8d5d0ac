"""Load of the machine: processor time of all processes, of deploykit's own, and time that a hypervisor took away.

/proc/stat counts for each core: user, nice, system, idle, iowait, irq, softirq, steal, … in ticks; the time of guests
is part of user. Steal is time for which a virtual core was ready to run and did not.
"""

import os

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_text
from deploy_kit.records.readings import Reading, ReadingKind

_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq
_STEAL = 7
_UTIME = 11  # counted behind the name, which may hold spaces: fields 14 and 15 of proc_pid_stat(5)


def _ticks(scope: GaugeScope) -> tuple[float, float] | None:
    """Return busy and stolen ticks, summed over the cores; None where there are none."""
    busy = steal = 0
    any_core = False
    for line in read_text(scope.root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and (not scope.cores or int(name[3:]) in scope.cores):
            counts = [int(field) for field in fields]
            busy += sum(counts[index] for index in _BUSY)
            steal += counts[_STEAL] if len(counts) > _STEAL else 0
            any_core = True
    return (busy, steal) if any_core else None


def _own_ticks(scope: GaugeScope) -> int:
    total = 0
    for pid in scope.own:
        fields = read_text(scope.root / f"proc/{pid}/stat").rpartition(")")[2].split()
        if fields:
            total += int(fields[_UTIME]) + int(fields[_UTIME + 1])
    return total


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read processor times in seconds, and the load average."""
    ticks = _ticks(scope)
    if ticks is None:
        return ()
    second = os.sysconf("SC_CLK_TCK")
    average = read_text(scope.root / "proc/loadavg").split()
    values: list[tuple[str, ReadingKind, float]] = [
        ("all processes", "busy_s", ticks[0] / second),
        ("own processes", "own_s", _own_ticks(scope) / second),
        ("hypervisor", "steal_s", ticks[1] / second),
    ]
    if average:
        values.append(("load average", "load", float(average[0])))
    return tuple(Reading(gauge="load", what=what, kind=kind, value=value) for what, kind, value in values)


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there is no load."""
    return "" if read(scope) else "no /proc/stat here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
