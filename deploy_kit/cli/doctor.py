"""``deploykit doctor``: what can work here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import DeviceName, OutputOptions

if TYPE_CHECKING:
    from deploy_kit.analysis.doctor import DoctorReport
    from deploy_kit.records.artifacts import Artifact


def doctor(
    *,
    device: DeviceName = "local",
    versions: Annotated[
        bool, typer.Option("--versions", help="Print the compatibility tables as Markdown, with sources, and exit.")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(help="Built engine to test: report whether it will load on the device.")
    ] = None,
    output: OutputOptions,
) -> None:
    """Report which engines and schemes work, what the others lack, and how to install it."""
    from deploy_kit.analysis import doctor as stage
    from deploy_kit.devices import links
    from deploy_kit.recipe.compatibility import page

    if versions:
        typer.echo(page.markdown())
        return
    with output.console() as console, links.connect_device(links.find_device(device)) as connection:
        report = stage.examine(connection, _passport(plan) if plan is not None else None)
        console.result(report, _text(report))


def _text(report: "DoctorReport") -> str:
    from deploy_kit.cli._console import pairs, table

    here = report.environment
    machine = [
        ("machine", here.host + (" (virtual)" if here.virtual else "")),
        ("processor", f"{here.cpu}, {here.cores} cores"),
        ("instructions", ", ".join(here.isa) or "none known"),
        ("memory", f"{here.memory_gib:g} GiB"),
        ("clock", f"{here.clock_mhz:.0f} MHz, governor {here.governor or 'not readable'}"),
        ("GPU", here.gpu or "none"),
    ]
    words = {True: "yes", False: "no", None: "–"}
    rows = [
        (f.kind, f.name, words[f.builds], words[f.runs], f.detail + (f"; fix: {f.fix}" if f.fix else ""))
        for f in report.findings
    ]
    verdicts = [(v.code, v.level, v.text + (f"; fix: {v.fix}" if v.fix else "")) for v in report.verdicts]
    blocks = [pairs(machine), table(("", "name", "makes", "runs", "detail"), rows)]
    blocks += [table(("versions", "", "what"), verdicts)] if verdicts else []
    return "\n\n".join(blocks) + "".join(f"\nnote: {remark}" for remark in report.remarks)


def _passport(plan: Path) -> "Artifact":
    from deploy_kit.base.errors import InputError
    from deploy_kit.records.passports import read_passport

    passport = read_passport(plan) if plan.is_file() else None
    if passport is None:
        raise InputError(
            f"{plan}: no passport beside it, so what built it is not known",
            hint="pass the path of the engine in the store that built it",
        )
    return passport


COMMAND = Command(
    call=doctor,
    order=90,
    example="deploykit doctor --device jetson",
)
