"""Gauges: what can be read of a machine while it is timed. One file a gauge; none changes anything.

Everything here runs in a worker and needs the standard library. A gauge reads below a root folder (``/`` of the
machine), so that the recorded tree of another machine can be read as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.records.readings import Reading

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class GaugeScope:
    """Where to read.

    Attributes:
        root: ``/``, or the root of a recorded tree.
        own: Processes whose load is deploykit's own.
        cores: Logical cores that the engines may use; empty for all.
    """

    root: Path = Path("/")
    own: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()


def _nothing(place: GaugeScope) -> tuple[()]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One gauge of the catalogue.

    Attributes:
        read: Readings of this moment.
        why_unavailable: Why it reads nothing here; empty if it reads.
        settings: (setting, value) of the machine that belong to it.
        advice: Commands for an administrator that would steady what it reads.
    """

    read: Callable[[GaugeScope], tuple[Reading, ...]]
    why_unavailable: Callable[[GaugeScope], str]
    settings: Callable[[GaugeScope], Pairs] = _nothing
    advice: Callable[[GaugeScope], tuple[str, ...]] = _nothing


CATALOGUE: Catalogue[Gauge] = Catalogue(__name__, "GAUGE", "gauge")
