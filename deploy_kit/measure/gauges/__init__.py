"""Gauges: sensors and counters of a machine that are read while engines are timed. One file each; none changes a thing.

Everything here runs in a worker and needs the standard library alone. A gauge reads below a root folder (``/`` of the
machine), so that the recorded tree of another machine can be read as well.

A third party registers a gauge under the entry points ``deploy_kit.gauges``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.records.readings import Reading

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class GaugeScope:
    """Part of a machine that gauges read.

    Attributes:
        root: Folder below which they read: ``/``, or the root of a recorded tree.
        own: Ids of the processes whose load is deploykit's own.
        cores: Numbers of the logical cores that engines may use; empty for all.
    """

    root: Path = Path("/")
    own: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()


def _nothing(scope: GaugeScope) -> tuple[()]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One gauge of the catalogue.

    Attributes:
        read: scope → readings at this moment; a value that cannot be read is left out, never 0.
        why_unavailable: scope → why it reads nothing there; empty if it reads.
        settings: scope → (name, value) of the machine's settings that affect what it reads.
        advice: scope → commands for an administrator that would steady what it reads.
        measures_energy: Whether its readings are energies or powers.
    """

    read: Callable[[GaugeScope], tuple[Reading, ...]]
    why_unavailable: Callable[[GaugeScope], str]
    settings: Callable[[GaugeScope], Pairs] = _nothing
    advice: Callable[[GaugeScope], tuple[str, ...]] = _nothing
    measures_energy: bool = False


CATALOGUE: Catalogue[Gauge] = Catalogue(__name__, "GAUGE", "gauge")
