"""``deploykit report``: what the store knows, as one table and two files."""

from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import REPORTS, AllowInvalid, OutputOptions, ReportFolder, SaveRecipe, StepOptions


def report(
    *,
    step: Annotated[StepOptions, Only("images", "recipe", "store")],
    out: ReportFolder = REPORTS,
    allow_invalid: AllowInvalid = False,
    save_recipe: SaveRecipe = None,
    output: OutputOptions,
) -> None:
    """Write report.json and report.md on everything made from the newest checkpoint.

    --save-recipe writes the steps that were taken as a recipe for `deploykit run`.
    """
    from deploy_kit import pipeline
    from deploy_kit import recipe as recipes
    from deploy_kit.base.whole_files import write_whole
    from deploy_kit.cli import _deployment, _output_files, _step_inputs, _steps
    from deploy_kit.cli._verdict_codes import report_code
    from deploy_kit.stages import report as stage

    with output.console() as console, _steps.open_run(step, console, lasting=step.images is None) as run:
        _step_inputs.require_engines(run)  # before the checkpoint is exported for nothing
        source = pipeline.exported(run)
        _step_inputs.require_engines(run, source)
        folder = out / run.recipe.name
        _output_files.verify_report_folder(folder, run.recipe.source.checkpoint)
        if save_recipe is not None:
            done = pipeline.recipe_done(run, source)
            _output_files.verify_recipe_file(save_recipe, done)
            write_whole(save_recipe, recipes.dump_recipe(done))
        collected = pipeline.collect(run, source)
        path = stage.run(collected, folder)
        console.result(collected, _deployment.text(collected, path))
    if code := report_code(collected, allow_invalid=allow_invalid):
        raise typer.Exit(code)


COMMAND = Command(
    call=report,
    order=70,
    example="deploykit report -o reports/",
)
