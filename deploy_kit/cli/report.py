"""``deploykit report``: what the store knows, as one table and two files."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command, _options


def report(
    recipe: _options.RecipeName = None,
    store: _options.StorePath = _options.STORE,
    out: Annotated[Path, typer.Option("--out", help="Folder of reports.")] = Path("reports"),
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Write report.json and report.md of everything made from the newest checkpoint."""
    from deploy_kit import pipeline
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, table
    from deploy_kit.stages import report as stage

    asked = _steps.Asked(store=store, recipe=recipe)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        made = pipeline.collect(run)
        path = stage.run(made, out / run.recipe.name)
        text = table(stage.HEADINGS, [stage.cells(row) for row in made.rows])
        console.result(made, f"{text}\n\nreport: {path}")
    if not made.passed:
        raise typer.Exit(1)


COMMAND = Command(call=report, order=70)
