"""``deploykit devices``: the machines to work on."""

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from deploy_kit.records.measurements import Environment

_Name = Annotated[str, typer.Argument(help="The device, as you call it.")]
_AnyName = Annotated[str, typer.Argument(help="The device, as you call it, or ssh://user@host:port.")]


def devices() -> None:
    """Name the machines to work on, look at them, and clear them up."""


def add(
    name: _Name,
    link: Annotated[str, typer.Argument(help="ssh://user@host:port, or local.")],
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="What computes there: cpu, cuda:0, dla:0, GPU or NPU.")
    ] = "cpu",
    profile: Annotated[
        Optional[str],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option("--profile", help="Profile of its hardware."),
    ] = None,
    python: Annotated[str, typer.Option("--python", help="The interpreter that runs there.")] = "python3",
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
) -> None:
    """Give a machine a name; nothing is sent to it."""
    from deploy_kit.cli._console import Console
    from deploy_kit.devices import named_devices

    entry = {"link": link, "accelerator": accelerator, "profile": profile, "python": python}
    made = named_devices.add_device(name, entry)
    with Console(quiet=quiet, as_json=as_json) as console:
        console.say(f"next: deploykit devices probe {name}")
        console.result(made, f"{name} is kept in {named_devices.user_file()}")


def show(quiet: _options.Quiet = False, as_json: _options.Json = False) -> None:
    """List the devices that have a name."""
    from deploy_kit.cli._console import Console, table
    from deploy_kit.devices import named_devices

    known = tuple(named_devices.known_devices().values())
    rows = [
        (d.name, f"{d.link}://{d.address}" if d.address else d.link, d.accelerator, d.profile or "", d.python)
        for d in known
    ]
    with Console(quiet=quiet, as_json=as_json) as console:
        console.result(known, table(("name", "link", "accelerator", "profile", "python"), rows))


def probe(
    name: _AnyName,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Say what a device is, how it is set, and which engines it can run."""
    from deploy_kit.analysis import doctor
    from deploy_kit.cli._console import Console, pairs, table
    from deploy_kit.devices import links

    device = links.find_device(name)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, links.connect_device(device) as link:
        found = doctor.probe(link)
        rows = [(row.name, {True: "yes", False: "no", None: "–"}[row.runs], row.detail) for row in found.findings]
        console.result(found, f"{pairs(facts(found.environment))}\n\n{table(('engine', 'runs', 'detail'), rows)}")


def clean(name: _AnyName, quiet: _options.Quiet = False, as_json: _options.Json = False) -> None:
    """Remove everything that deploykit keeps on a device."""
    from deploy_kit.cli._console import Console
    from deploy_kit.devices import links
    from deploy_kit.stages.report import size

    device = links.find_device(name)
    with Console(quiet=quiet, as_json=as_json) as console:
        cleaned = links.clean_device(device)
        console.result(cleaned, f"{cleaned.folder} on {name}: {size(cleaned.n_bytes)} removed")


def remove(name: _Name, quiet: _options.Quiet = False, as_json: _options.Json = False) -> None:
    """Forget a device's name; what lies on it stays."""
    from deploy_kit.cli._console import Console
    from deploy_kit.devices import named_devices

    path = named_devices.remove_device(name)
    with Console(quiet=quiet, as_json=as_json) as console:
        console.result({"removed": name, "file": str(path)}, f"{name} is taken out of {path}")


def facts(there: "Environment") -> list[tuple[str, str]]:
    """Lay out what a machine is; what it does not give is left out."""
    found = [
        ("board", there.board),
        ("machine", there.host + (" (virtual)" if there.virtual else "")),
        ("emulated", there.emulated and f"by {there.emulated}: its times are none"),
        ("JetPack", there.jetpack),
        ("L4T", there.l4t),
        ("TensorRT", there.tensorrt or dict(there.versions).get("tensorrt", "")),
        ("CUDA capability", there.cuda_capability),
        ("processor", f"{there.cpu}, {there.cores} cores"),
        ("instructions", ", ".join(there.isa)),
        ("power mode", there.power_mode),
        ("clock", f"{there.clock_mhz:.0f} MHz" if there.clock_mhz else ""),
        ("governor", there.governor),
        ("memory", f"{there.memory_gib:g} GiB, {there.free_memory_gib:g} GiB free"),
        ("GPU", there.gpu),
        ("Python", dict(there.versions)["python"]),
    ]
    return [(what, value) for what, value in found if value]


COMMAND = Command(
    call=devices, order=95, parts={"add": add, "list": show, "probe": probe, "clean": clean, "remove": remove}
)
