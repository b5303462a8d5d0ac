"""``deploykit devices``: the machines to work on."""

from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions

if TYPE_CHECKING:
    from deploy_kit.records.artifacts import Device
    from deploy_kit.records.measurements import Environment

_Name = Annotated[str, typer.Argument(help="Name of the device.")]
_AnyName = Annotated[str, typer.Argument(help="Name of the device, or ssh://user@host:port.")]
_Output = Annotated[OutputOptions, Only("quiet", "as_json")]


def devices() -> None:
    """Add, list, probe, clean and remove the devices to work on."""


def add(
    name: _Name,
    link: Annotated[str, typer.Argument(help="Connection to the device: ssh://user@host:port, or local.")],
    *,
    accelerator: Annotated[
        str, typer.Option(help="Processor that runs the engines: cpu, cuda:0, dla:0, GPU or NPU.")
    ] = "cpu",
    python: Annotated[str, typer.Option(help="Python interpreter on the device.")] = "python3",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the device that has the name already.")] = False,
    output: _Output,
) -> None:
    """Add a device under a name; nothing is sent to it."""
    from deploy_kit.devices import named_devices

    entry = {"link": link, "accelerator": accelerator, "python": python}
    device = named_devices.add_device(name, entry, replace=replace)
    with output.console() as console:
        console.say(f"next: deploykit devices probe {name}")
        console.result(device, f"added '{name}' to {named_devices.user_file()}")


def show(*, output: _Output) -> None:
    """List the named devices."""
    from deploy_kit.cli._console import table
    from deploy_kit.devices import named_devices

    known = tuple(named_devices.known_devices().values())
    rows = [(d.name, f"{d.link}://{d.address}" if d.address else d.link, d.accelerator, d.python) for d in known]
    with output.console() as console:
        console.result(known, table(("name", "link", "accelerator", "python"), rows))


def probe(name: _AnyName, *, output: OutputOptions) -> None:
    """Show a device's hardware, its settings and the engines it can run."""
    from deploy_kit.analysis import doctor
    from deploy_kit.cli._console import pairs, table
    from deploy_kit.devices import links

    device = links.find_device(name)
    with output.console() as console, links.connect_device(device, bare=True) as connection:
        report, lack = doctor.probe(connection), connection.lacks("numpy")
        rows = [
            (
                row.name,
                {True: "yes", False: "no", None: "–"}[row.runs],
                row.detail + (f"; fix: {row.fix}" if row.fix and row.fix != lack else ""),
            )
            for row in report.findings
        ]
        engines = table(("engine", "runs", "detail"), rows)
        fix = f"\n\n{pairs(_ways_to_numpy(device, lack))}" if lack else ""  # once: every engine needs it
        console.result(report, f"{pairs(machine_rows(report.environment))}\n\n{engines}{fix}")


def _ways_to_numpy(device: "Device", lack: str) -> list[tuple[str, str]]:
    """Say how numpy comes to a device: by the line that installs it, or in an environment, which needs no rights."""
    import shlex

    name = "NAME" if "://" in device.name else device.name
    there = "~/deploykit/bin/python3"  # `Device.python_word` lets it be that user's
    accelerator = [] if device.accelerator == "cpu" else ["--accelerator", device.accelerator]
    add = shlex.join(["deploykit", "devices", "add", name, f"{device.link}://{device.address}", *accelerator])
    return [
        (f"fix, on {device.name}", lack),
        ("or there", f"{device.python_word} -m venv ~/deploykit && {there} -m pip install numpy"),
        ("and here", f"{add} --python '{there}' --replace"),
    ]


def clean(name: _AnyName, *, output: _Output) -> None:
    """Remove everything that deploykit keeps on a device."""
    from deploy_kit.devices import links
    from deploy_kit.records.engine_table import size

    device = links.find_device(name)
    with output.console() as console:
        cleaned = links.clean_device(device)
        console.result(cleaned, f"{cleaned.folder} on {name}: {size(cleaned.n_bytes)} removed")


def remove(name: _Name, *, output: _Output) -> None:
    """Forget a device's name; its files stay."""
    from deploy_kit.devices import named_devices

    path = named_devices.remove_device(name)
    with output.console() as console:
        console.result({"removed": name, "file": str(path)}, f"removed '{name}' from {path}")


def machine_rows(there: "Environment") -> list[tuple[str, str]]:
    """Describe a machine as (name, value) lines; what it does not report is left out."""
    rows = [
        ("board", there.board),
        ("machine", there.host + (" (virtual)" if there.virtual else "")),
        ("emulated", there.emulated and f"by {there.emulated}: its times are not measurements"),
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
    return [(name, value) for name, value in rows if value]


COMMAND = Command(
    call=devices,
    order=95,
    parts={"add": add, "list": show, "probe": probe, "clean": clean, "remove": remove},
    examples={
        "add": "deploykit devices add jetson ssh://user@orin --accelerator cuda:0",
        "list": "deploykit devices list",
        "probe": "deploykit devices probe jetson",
        "clean": "deploykit devices clean jetson",
        "remove": "deploykit devices remove jetson",
    },
)
