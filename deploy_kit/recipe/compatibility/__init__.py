"""Which versions work together, as data with sources: the rows of `compatibility.yaml`, and how they are looked up."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

from deploy_kit.base.versions import is_older, version_numbers
from deploy_kit.records import codec


@dataclass(frozen=True, kw_only=True)
class JetPack:
    """What one JetPack release ships; a field that no source states is empty."""

    jetpack: str
    l4t: tuple[str, ...]
    families: tuple[str, ...]
    tensorrt: str
    cuda: str
    python: str
    source: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class JetsonModule:
    """One Jetson module: words of its device tree, family, compute capability, and whether it has DLA cores."""

    module: str
    family: str
    sm: str
    dla: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class DlaSupport:
    """The modules on which a range of TensorRT versions supports the DLA, and the first JetPack that it needs."""

    modules: tuple[str, ...]
    source: str
    since: str = ""
    until: str = ""
    jetpack: str = ""


@dataclass(frozen=True, kw_only=True)
class OnJetson:
    """The families on which a range of TensorRT that no JetPack ships runs, and the first JetPack that it needs."""

    since: str
    jetpack: str
    families: tuple[str, ...]
    source: str
    until: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Capability:
    """A compute capability: its precisions, and the last TensorRT that supports it; empty if none has dropped it."""

    sm: str
    architecture: str
    precisions: tuple[str, ...]
    source: str
    last: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DriverFloor:
    """The oldest driver for a CUDA major version."""

    cuda: str
    driver: str
    source: str


@dataclass(frozen=True, kw_only=True)
class OnnxLimit:
    """The newest operator set, and IR version where it is checked, that a library reads from a version on."""

    library: str
    since: str
    opset: int
    source: str
    ir: int | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class KnownBad:
    """A range of releases with a fault, and its workaround; on one compute capability only, if `sm` names it."""

    library: str
    since: str
    until: str
    what: str
    workaround: str
    source: str
    sm: str = ""


@dataclass(frozen=True, kw_only=True)
class CompatibilityTable:
    """All rows, in the order of the file."""

    jetpack: tuple[JetPack, ...]
    modules: tuple[JetsonModule, ...]
    dla: tuple[DlaSupport, ...]
    tensorrt_on_jetson: tuple[OnJetson, ...]
    sm: tuple[Capability, ...]
    driver: tuple[DriverFloor, ...]
    onnx: tuple[OnnxLimit, ...]
    known_bad: tuple[KnownBad, ...]


@functools.cache
def compatibility_table() -> CompatibilityTable:
    """Read the rows."""
    text = resources.files(__name__).joinpath("compatibility.yaml").read_text(encoding="utf-8")
    return codec.from_json(CompatibilityTable, yaml.safe_load(text), "compatibility.yaml")


def within(version: str, since: str, until: str) -> bool:
    """Return whether a known version lies in a range that includes its ends; an empty end is open."""
    return (
        bool(version_numbers(version))
        and not (since and is_older(version, since))
        and not (until and is_older(until, version))
    )


def starts_with(version: str, prefix: str) -> bool:
    """Return whether a version begins with all numbers of a prefix: 10.3.0 with 10.3, and not with 10.30."""
    first = version_numbers(prefix)
    return bool(first) and version_numbers(version)[: len(first)] == first


def jetpack(l4t: str) -> JetPack | None:
    """Find the JetPack of exactly this L4T release, e.g. ``36.4.3``; NVIDIA writes 36.4 for 36.4.0."""
    exact = ".".join(map(str, (*version_numbers(l4t), 0, 0)[:3]))
    return next((row for row in compatibility_table().jetpack if exact in row.l4t), None)


def module(board: str) -> JetsonModule | None:
    """Find the module that a device tree's model names, e.g. ``NVIDIA Jetson Orin NX Engineering Reference``."""
    return next((row for row in compatibility_table().modules if row.module in board), None)


def capability(sm: str) -> Capability | None:
    """Find the row of a compute capability, e.g. ``8.7``."""
    return next((row for row in compatibility_table().sm if starts_with(sm, row.sm)), None)


def onnx_limit(library: str, version: str) -> OnnxLimit | None:
    """Find the limits of a library's version: its newest row that is not newer than the version, if there is one."""
    rows: Sequence[OnnxLimit] = [
        row for row in compatibility_table().onnx if row.library == library and within(version, row.since, "")
    ]
    return max(rows, key=lambda row: version_numbers(row.since), default=None)
