"""``deploykit lint``: what a target will not accept, before it is built."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import STORE, OutputOptions, StorePath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy_kit.graph.lint import LintFinding, LintTarget


def lint(
    model: Annotated[Path | None, typer.Argument(help="ONNX file; by default the newest graph in the store.")] = None,
    *,
    target: Annotated[
        str,
        typer.Option(help="Target engine, or dla; with a version if it is not the installed one: tensorrt:10.3."),
    ] = "onnxruntime",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 on warnings, too.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="Print all rules as a Markdown table, and exit.")] = False,
    store: StorePath = STORE,
    output: OutputOptions,
) -> None:
    """Check a graph against the rules of a target; exit with code 1 on an error."""
    from deploy_kit import engines
    from deploy_kit.cli import _file_kinds, _step_inputs
    from deploy_kit.cli._console import table
    from deploy_kit.graph import lint as linter

    if rules:
        typer.echo(linter.rules_table())
        return
    lint_target = _with_version(linter.parse_target(target, engines.CATALOGUE.names()))
    with output.console() as console:
        path = model or _step_inputs.newest_graph(store, console)
        with _file_kinds.named(path, "lint", "an ONNX file"):
            findings = linter.lint_file(path, lint_target)
        rows = _grouped(findings)
        named = f"{lint_target.engine} {lint_target.version}".strip()
        console.result(findings, table(("code", "", "node", "what"), rows) if rows else f"no findings for {named}")
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.level in failing for finding in findings):
        raise typer.Exit(1)


def _with_version(target: "LintTarget") -> "LintTarget":
    """Return a target without a version with that of its library here."""
    from deploy_kit.graph import lint as linter
    from deploy_kit.machine.environment import library_version

    if target.version:
        return target
    library = "tensorrt" if target.engine == linter.DLA else target.engine
    version = library_version(library) or library_version(library.replace("_", "-"))
    return linter.LintTarget(engine=target.engine, version=version)


def _grouped(findings: "Sequence[LintFinding]") -> list[tuple[str, str, str, str]]:
    """Put findings that say the same into one row: code, level, the first node and how many more, text and cure."""
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for one in findings:
        nodes.setdefault((one.code, one.level, f"{one.text}; fix: {one.cure}"), []).append(one.node or "–")
    return [
        (code, level, at[0] + (f" and {len(at) - 1} more" if len(at) > 1 else ""), text)
        for (code, level, text), at in nodes.items()
    ]


COMMAND = Command(
    call=lint,
    order=35,
    example="deploykit lint best-int8.onnx --target tensorrt:10.3",
)
