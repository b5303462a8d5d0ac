"""Load that is not deploykit's: processor time of all processes, of our own, and what a hypervisor took away.

/proc/stat counts by core: user, nice, system, idle, iowait, irq, softirq, steal, … in ticks; a guest's time is within
user. Steal is time that a virtual core wanted and did not get.
"""

import os

from deploy_kit.measure.gauges import Gauge, GaugeScope
from deploy_kit.measure.gauges._files import read_text
from deploy_kit.records.readings import Reading, ReadingKind

_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq
_STEAL = 7
_UTIME = 11  # counted behind the name, which may hold spaces: fields 14 and 15 of proc_pid_stat(5)


def _ticks(place: GaugeScope) -> tuple[float, float] | None:
    """Sum busy and stolen ticks over the cores."""
    busy = steal = 0
    found = False
    for line in read_text(place.root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and (not place.cores or int(name[3:]) in place.cores):
            counts = [int(field) for field in fields]
            busy += sum(counts[index] for index in _BUSY)
            steal += counts[_STEAL] if len(counts) > _STEAL else 0
            found = True
    return (busy, steal) if found else None


def _own(place: GaugeScope) -> int:
    total = 0
    for pid in place.own:
        fields = read_text(place.root / f"proc/{pid}/stat").rpartition(")")[2].split()
        if fields:
            total += int(fields[_UTIME]) + int(fields[_UTIME + 1])
    return total


def read(place: GaugeScope) -> tuple[Reading, ...]:
    """Read processor time in seconds, and the load average."""
    ticks = _ticks(place)
    if ticks is None:
        return ()
    second = os.sysconf("SC_CLK_TCK")
    average = read_text(place.root / "proc/loadavg").split()
    values: list[tuple[str, ReadingKind, float]] = [
        ("all processes", "busy_s", ticks[0] / second),
        ("own processes", "own_s", _own(place) / second),
        ("hypervisor", "steal_s", ticks[1] / second),
    ]
    if average:
        values.append(("load average", "load", float(average[0])))
    return tuple(Reading(gauge="load", what=what, kind=kind, value=value) for what, kind, value in values)


def why_unavailable(place: GaugeScope) -> str:
    """Say why there is no load."""
    return "" if read(place) else "no /proc/stat here"


GAUGE = Gauge(read=read, why_unavailable=why_unavailable)
