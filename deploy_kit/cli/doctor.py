"""``deploykit doctor``: what can work here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from deploy_kit.records.artifacts import Artifact


def doctor(
    device: _options.DeviceName = "local",
    versions: Annotated[
        bool, typer.Option("--versions", help="Print what fits what as Markdown tables with sources, and end.")
    ] = False,
    plan: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option("--plan", help="A built engine: say whether it will load there."),
    ] = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Say what can work here, what the rest lack, and what installs it."""
    from deploy_kit.analysis import doctor as stage
    from deploy_kit.cli._console import Console, pairs, table
    from deploy_kit.devices import links
    from deploy_kit.recipe.compatibility import page

    if versions:
        typer.echo(page.markdown())
        return
    with (
        Console(quiet=quiet, as_json=as_json, no_color=no_color) as console,
        links.connect_device(links.find_device(device)) as connection,
    ):
        found = stage.examine(connection, _passport(plan) if plan is not None else None)
        here = found.environment
        machine = pairs(
            [
                ("machine", here.host + (" (virtual)" if here.virtual else "")),
                ("processor", f"{here.cpu}, {here.cores} cores"),
                ("instructions", ", ".join(here.isa) or "none known"),
                ("memory", f"{here.memory_gib:g} GiB"),
                ("clock", f"{here.clock_mhz:.0f} MHz, governor {here.governor or 'not readable'}"),
                ("GPU", here.gpu or "none"),
            ]
        )
        words = {True: "yes", False: "no", None: "–"}
        rows = [
            (f.kind, f.name, words[f.builds], words[f.runs], f.detail + (f"; fix: {f.fix}" if f.fix else ""))
            for f in found.findings
        ]
        text = table(("", "name", "makes", "runs", "detail"), rows)
        judged = [(v.code, v.level, v.text + (f"; fix: {v.fix}" if v.fix else "")) for v in found.verdicts]
        fits = "\n\n" + table(("versions", "", "what"), judged) if judged else ""
        remarks = "".join(f"\nnote: {remark}" for remark in found.remarks)
        console.result(found, f"{machine}\n\n{text}{fits}{remarks}")


def _passport(plan: Path) -> "Artifact":
    from deploy_kit.analysis.inspection import read_passport
    from deploy_kit.base.errors import InputError

    found = read_passport(plan) if plan.is_file() else None
    if found is None:
        raise InputError(
            f"{plan}: no passport beside it: nothing is known of what built it",
            hint="name it in the store it was built in",
        )
    return found


COMMAND = Command(call=doctor, order=90)
