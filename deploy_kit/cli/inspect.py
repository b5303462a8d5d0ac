"""``deploykit inspect``: what is this file."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command, _options


def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, an ONNX graph or a built engine.")],
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Say what a file is: architecture, parameters, MACs, precision, passport."""
    from deploy_kit import inspect as stage
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.report import size

    found = stage.run(path)
    lines = [("file", f"{found.path} ({size(found.size_bytes)})"), ("is", found.title), *found.facts]
    for what, specs in (("input", found.inputs), ("output", found.outputs)):
        lines += [(what, f"{spec.name} {spec.dtype} {list(spec.shape)}") for spec in specs]
    if found.operators:
        lines.append(("operators", ", ".join(f"{n} {name}" for name, n in found.operators)))
    if found.passport:
        lines.append(("made by", "; ".join(f"{k} {v}" for k, v in found.passport.made_by)))
        lines.append(("parent", found.passport.parent))
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        console.result(found, pairs(lines))


COMMAND = Command(call=inspect, order=80)
