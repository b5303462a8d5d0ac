"""``bench --beside``: the same engines on other devices, one after the other; no ratio crosses from one to another."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from deploy_kit.base.errors import DeployKitError, DeviceError, MissingPackageError
from deploy_kit.cli import _bench_outcome, _layer_profiles
from deploy_kit.cli._console import Console
from deploy_kit.devices import links
from deploy_kit.pipeline import Run
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.measurements import Bench, NotRun
from deploy_kit.records.results import EngineRow
from deploy_kit.stages import bench


def find_devices(device: str, beside: Sequence[str]) -> dict[str, Device]:
    """Find the devices to measure on as well, each once, and verify that they answer, before any work.

    Raises:
        DeviceError: One is not known, or cannot be reached, or lacks what every job needs.
    """
    others = {name: links.find_device(name) for name in dict.fromkeys(beside) if name != device}
    for other in others.values():
        with links.connect_device(other):
            pass
    return others


def measure(
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
        The bench of each device, by name, and the errors of those that gave none. An error of one device takes nothing
        from the benches of the others.
    """
    benches, errors = dict[str, Bench](), dict[str, DeployKitError]()
    for name, device in others.items():
        try:
            with links.connect_device(device) as connection:
                context = dataclasses.replace(run.host, connection=connection)
                benches[name], reused = bench.run(engines, part, context, fresh=fresh)
        except (DeviceError, MissingPackageError) as error:
            errors[name] = error
            absent = (NotRun(artifact=engine.sha256, label=engine.label, why=str(error)) for engine in engines)
            benches[name] = Bench(measurements=(), not_run=tuple(absent))
        else:
            if reused:
                console.say(f"already measured on '{name}'; measure again with --fresh")
    return benches, errors


def details(rows_by_device: Mapping[str, Sequence[EngineRow]]) -> Iterator[str]:
    """Draw load costs and layer profiles of each device, under its name where there are several."""
    for name, rows in rows_by_device.items():
        for text in _layer_profiles.tables(rows):
            yield f"{name}\n{text}" if len(rows_by_device) > 1 else text


def missed_limits(rows_by_device: Mapping[str, Sequence[EngineRow]]) -> list[str]:
    """List the limits that are not kept, each with its engine, and with its device where there are several."""
    return [
        f"{_prefix(name, rows_by_device)}{miss}"
        for name, rows in rows_by_device.items()
        for miss in _bench_outcome.missed_limits(rows)
    ]


def raise_first_failure(
    benches: Mapping[str, Bench], errors: Mapping[str, DeployKitError], *, allow_invalid: bool
) -> None:
    """Raise the failure of the first device that has one.

    Raises:
        DeployKitError: As `_bench_outcome.raise_failure`, or the error of a device that gave no bench.
    """
    for name, measured in benches.items():
        if name in errors:
            raise errors[name]
        _bench_outcome.raise_failure(measured, at=_prefix(name, benches), allow_invalid=allow_invalid)


def _prefix(name: str, devices: Mapping[str, object]) -> str:
    return f"{name}: " if len(devices) > 1 else ""
