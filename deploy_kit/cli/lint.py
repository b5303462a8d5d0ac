"""``deploykit lint``: what a target will not take, before it is asked."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def lint(
    model: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Argument(help="An ONNX file; by default the newest graph in the store."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="The engine it is for, or dla; with a version if it is another than here: tensorrt:10.3."),
    ] = "onnxruntime",
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail, too.")] = False,
    store: _options.StorePath = _options.STORE,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Apply the rules of a target to a graph; exit code 1 if one finds an error."""
    from deploy_kit import lint as rules
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, table
    from deploy_kit.environment import library_version

    wanted = rules.parse(target)
    if not wanted.version:
        here = library_version(wanted.engine) or library_version(wanted.engine.replace("_", "-"))
        wanted = rules.Target(engine=wanted.engine, version=here)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        found = rules.run_file(model or _steps.newest_graph(store, console), wanted)
        rows = [(f.code, f.level, f.node or "–", f"{f.text}; fix: {f.cure}") for f in found]
        named = f"{wanted.engine} {wanted.version}".strip()
        console.result(found, table(("code", "", "node", "what"), rows) if rows else f"nothing found for {named}")
    failing = {"error", "warning"} if strict else {"error"}
    if any(f.level in failing for f in found):
        raise typer.Exit(1)


COMMAND = Command(call=lint, order=35)
