"""``bench --beside``: the same engines on other devices, one after the other; no ratio crosses from one to another."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from deploy_kit.base.errors import DeployKitError, DeviceError, MissingPackageError
from deploy_kit.cli import _bench, _layers
from deploy_kit.cli._console import Console
from deploy_kit.devices import links
from deploy_kit.pipeline import Run
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.measurements import Bench, NotRun
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import bench


def reached(device: str, beside: Sequence[str]) -> dict[str, Device]:
    """Find the devices to measure on as well, each once, and see that they answer, before any work.

    Raises:
        DeviceError: One is not known, or cannot be reached, or lacks what every job needs.
    """
    others = {name: links.find_device(name) for name in dict.fromkeys(beside) if name != device}
    for other in others.values():
        with links.connect_device(other):
            pass
    return others


def measured(
    run: Run,
    console: Console,
    others: Mapping[str, Device],
    engines: tuple[Artifact, ...],
    part: BenchTable,
    *,
    fresh: bool,
) -> tuple[dict[str, Bench], dict[str, DeployKitError]]:
    """Measure the same engines on other devices, one device after the other.

    Returns:
        What each gave, by name; and why one gave nothing. That takes nothing from what the others gave.
    """
    found, lost = dict[str, Bench](), dict[str, DeployKitError]()
    for name, device in others.items():
        try:
            with links.connect_device(device) as connection:
                found[name], reused = bench.run(
                    engines, part, dataclasses.replace(run.host, connection=connection), fresh=fresh
                )
        except (DeviceError, MissingPackageError) as error:
            lost[name] = error
            absent = (NotRun(artifact=one.sha256, label=one.label, why=str(error)) for one in engines)
            found[name] = Bench(measurements=(), not_run=tuple(absent))
        else:
            if reused:
                console.say(f"measured before, on '{name}': --fresh measures again")
    return found, lost


def details(rows: Mapping[str, Sequence[EngineRow]]) -> Iterator[str]:
    """Draw what loading cost and the profiles of each device, under its name where there are several."""
    for name, found in rows.items():
        for text in _layers.texts(found):
            yield f"{name}\n{text}" if len(rows) > 1 else text


def missed(rows: Mapping[str, Sequence[EngineRow]]) -> list[str]:
    """List the limits that are not kept, each with its engine, and with its device where there are several."""
    return [f"{_at(name, rows)}{miss}" for name, found in rows.items() for miss in _bench.missed(found)]


def end(found: Mapping[str, Bench], lost: Mapping[str, DeployKitError], *, allow_invalid: bool) -> None:
    """Raise what the first device that did not come to a good end ended with.

    Raises:
        DeployKitError: As `_bench.end`; or a device gave nothing.
    """
    for name, one in found.items():
        if name in lost:
            raise lost[name]
        _bench.end(one, at=_at(name, found), allow_invalid=allow_invalid)


def _at(name: str, among: Mapping[str, object]) -> str:
    return f"{name}: " if len(among) > 1 else ""
