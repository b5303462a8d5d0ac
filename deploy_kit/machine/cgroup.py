"""Limits of a container on processors and memory, from Linux control groups of version 2 and 1. No limit is 0.

A group is bounded by its own limit and by those of all groups it lies in; inside a container the outer ones cannot
be seen. Files and their meaning are those of the kernel's admin-guide: cgroup-v2, cgroup-v1/memory and
scheduler/sched-bwc.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # version 1 writes "no limit" as the largest whole page below 2^63


def cpu_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float:
    """Return the number of processors whose time this process may use, e.g. 1.5; 0 without a limit."""
    quotas = [_quota(_read(group / "cpu.max")) for group in _groups(root, membership, "")]
    for group in _groups(root, membership, "cpu"):
        quotas.append(_quota(f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"))
    return min(filter(None, quotas), default=0.0)


def memory_limit_bytes(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Return the memory in bytes that this process may use; 0 without a limit."""
    texts = [_read(group / "memory.max") for group in _groups(root, membership, "")]
    texts += [_read(group / "memory.limit_in_bytes") for group in _groups(root, membership, "memory")]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min((limit for limit in limits if 0 < limit < _UNLIMITED), default=0)


def held_back_s(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """Return the seconds for which a CPU quota has held this process's groups back so far, summed over the cores.

    Returns:
        Seconds since the groups were made; None where no group counts them.
    """
    files = [group / "cpu.stat" for name in ("", "cpu") for group in _groups(root, membership, name)]
    counts = [dict(line.split(maxsplit=1) for line in _read(file).splitlines() if " " in line) for file in files]
    us = [int(count["throttled_usec"]) for count in counts if count.get("throttled_usec", "").isdecimal()]
    ns = [int(count["throttled_time"]) for count in counts if count.get("throttled_time", "").isdecimal()]
    return sum(us) / 1e6 + sum(ns) / 1e9 if us or ns else None


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """List this process's group and those that it lies in; a container often shows the outermost alone.

    Args:
        root: Folder where control groups are mounted.
        membership: File with lines ``hierarchy:controllers:path``.
        controller: Controller of version 1; empty for version 2, which has one hierarchy for all.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mounts = [root / name for name in (controllers, controller)] if controller else [root, root / "unified"]
            inner = PurePosixPath(path.lstrip("/"))
            for mount in dict.fromkeys(mounts):
                yield from (mount / group for group in (inner, *inner.parents))


def _quota(text: str) -> float:
    """Convert ``quota period``, both in µs, to processors; ``max`` and -1 are no limit."""
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
