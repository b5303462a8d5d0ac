"""``deploykit lint``: what a target will not take, before it is asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy_kit.graph.lint import LintFinding


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
    rules: Annotated[bool, typer.Option("--rules", help="Print every rule as a Markdown table, and end.")] = False,
    store: _options.StorePath = _options.STORE,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Apply the rules of a target to a graph; exit code 1 if one finds an error."""
    from deploy_kit import engines
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, table
    from deploy_kit.graph import lint as linter
    from deploy_kit.machine.environment import library_version

    if rules:
        typer.echo(linter.rules_table())
        return
    wanted = linter.parse_target(target, engines.CATALOGUE.names())
    if not wanted.version:
        library = "tensorrt" if wanted.engine == linter.DLA else wanted.engine
        here = library_version(library) or library_version(library.replace("_", "-"))
        wanted = linter.LintTarget(engine=wanted.engine, version=here)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        found = linter.lint_file(model or _steps.newest_graph(store, console), wanted)
        rows = _grouped(found)
        named = f"{wanted.engine} {wanted.version}".strip()
        console.result(found, table(("code", "", "node", "what"), rows) if rows else f"nothing found for {named}")
    failing = {"error", "warning"} if strict else {"error"}
    if any(f.level in failing for f in found):
        raise typer.Exit(1)


def _grouped(found: "Sequence[LintFinding]") -> list[tuple[str, str, str, str]]:
    """Put findings that say the same into one row: code, level, the first node and how many more, text and cure."""
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        nodes.setdefault((one.code, one.level, f"{one.text}; fix: {one.cure}"), []).append(one.node or "–")
    return [
        (code, level, at[0] + (f" and {len(at) - 1} more" if len(at) > 1 else ""), text)
        for (code, level, text), at in nodes.items()
    ]


COMMAND = Command(call=lint, order=35)
