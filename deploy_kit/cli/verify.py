"""``deploykit verify``: is this bundle what was packed, and does it answer so here?"""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import DeviceName, OutputOptions


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip.")],
    *,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file with the public key of whoever packed it: asks for its signature.")
    ] = None,
    device: DeviceName = "local",
    output: OutputOptions,
) -> None:
    """Verify a bundle: files, signature, version, outputs; exit with code 1 if something differs."""
    from deploy_kit.cli._console import table
    from deploy_kit.delivery import contents, verification
    from deploy_kit.devices import links

    target = links.find_device(device)
    with output.console() as console, contents.opened(bundle) as opened, links.connect_device(target) as connection:
        found = verification.verify_bundle(opened, connection, public_key)
        rows = [(row.what, {True: "yes", False: "NO", None: "–"}[row.ok], row.detail) for row in found.findings]
        console.result(found, table(("what", "holds", "found"), rows))
    if not found.ok:
        raise typer.Exit(1)


COMMAND = Command(call=verify, order=74, example="deploykit verify best-int8/ --device jetson")
