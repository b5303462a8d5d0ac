"""``deploykit report``: what the store knows, as one table and two files."""

from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import REPORTS, AllowInvalid, OutputOptions, ReportFolder, StepOptions


def report(
    *,
    step: Annotated[StepOptions, Only("images", "recipe", "store")],
    out: ReportFolder = REPORTS,
    allow_invalid: AllowInvalid = False,
    output: OutputOptions,
) -> None:
    """Write report.json and report.md on everything made from the newest checkpoint."""
    from deploy_kit import pipeline
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import table
    from deploy_kit.cli._verdict_codes import report_code
    from deploy_kit.records import engine_table
    from deploy_kit.stages import report as stage

    with output.console() as console, _steps.open_run(step, console, lasting=step.images is None) as run:
        collected = pipeline.collect(run)
        path = stage.run(collected, out / run.recipe.name)
        text = table(engine_table.HEADINGS, [engine_table.cells(row) for row in collected.rows])
        console.result(collected, f"{text}\n\nreport: {path}")
    if code := report_code(collected, allow_invalid=allow_invalid):
        raise typer.Exit(code)


COMMAND = Command(
    call=report,
    order=70,
    example="deploykit report -o reports/",
)
